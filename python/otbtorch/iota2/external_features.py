"""External features of iota2: embeddings that were written before, as bands of its feature stack.

iota2 loads a Python file and calls functions of it by name, chunk by chunk. Make a file of your own

    from otbtorch.iota2.external_features import embeddings
    get_embeddings = embeddings("/data/run/features/{tile}/tmp/{tile}_embedding.tif")

or name this one, and the raster in the variable OTBTORCH_EMBEDDINGS. The array has the chunk's rows
and columns, and a label per band.

What tells where the chunk lies, in this order: keyword arguments ``tile`` and ``window``; an array
that iota2 itself cuts out for the function (``exogenous``, the name of an attribute or method of its
data container); attributes ``tile`` (``tile_name``) and ``window`` of the container; and, since
iota2 of 2020 gives its functions neither, the local variables of its callers that hold them
(``compute_custom_features``: tile; ``process_function``: stream_bbox).
"""

import os
import sys

import numpy as np

from otbtorch.iota2 import complaint

VARIABLE = "OTBTORCH_EMBEDDINGS"
SENSOR = "otbtorch"


def labels_of(count, name="emb", styled=None):
    """A label per band: objects of iota2's I2Label where there is such a class, else words.

    :param styled: the class; found by import where it is not given
    """
    if styled is None:
        try:
            from iota2.learning.utils import I2Label as styled
        except ImportError:
            return [f"{name}_{k}" for k in range(count)]
    return [styled(sensor_name=SENSOR, feat_name=f"{name}{k}") for k in range(count)]


def read_window(raster, window=None, fill=0.0):
    """Pixels (rows, columns, bands), float32, of a window (x, y, columns, rows); all where it is None.

    No-data, NaN and infinity become ``fill``: iota2 refuses arrays that are not finite.

    :raises Iota2Error: a file that cannot be read, or a window beyond it
    """
    from otbtorch.iota2.classify import _open

    image = _open(raster, "embeddings")
    x, y, columns, rows = window or (0, 0, image.RasterXSize, image.RasterYSize)
    if x < 0 or y < 0 or columns < 1 or rows < 1 or x + columns > image.RasterXSize or y + rows > image.RasterYSize:
        found = f"the window {(x, y, columns, rows)}"
        raise complaint("embeddings", found, f'one inside {image.RasterXSize} x {image.RasterYSize} pixels of "{raster}"')
    array = image.ReadAsArray(int(x), int(y), int(columns), int(rows))
    array = np.atleast_3d(array.T).transpose(1, 0, 2) if array.ndim == 2 else array.transpose(1, 2, 0)
    nodata = image.GetRasterBand(1).GetNoDataValue()
    array = array.astype(np.float32)
    bad = ~np.isfinite(array)
    if nodata is not None:
        bad |= array == np.float32(nodata)
    array[bad] = fill
    return array


def _of_callers():
    """(tile, window) from the functions of iota2 of 2020 that are running; None for what is not found."""
    tile = window = None
    frame = sys._getframe(1)
    while frame is not None and (tile is None or window is None):
        name, local = frame.f_code.co_name, frame.f_locals
        if name == "process_function" and local.get("stream_bbox"):
            x, columns, y, rows = local["stream_bbox"]
            window = window or (x, y, columns, rows)
        elif name == "compute_custom_features":
            tile = tile or local.get("tile")
        frame = frame.f_back
    return tile, window


def _exogenous(container, name):
    value = getattr(container, name, None)
    value = value() if callable(value) else value
    value = value[0] if isinstance(value, tuple) else value
    if not isinstance(value, np.ndarray) or value.ndim not in (2, 3):
        raise complaint("exogenous", f'{type(value).__name__} in "{name}"', "an array (rows, columns, bands) of iota2's data container")
    value = np.atleast_3d(value).astype(np.float32)
    value[~np.isfinite(value)] = 0
    return value


def embeddings(raster=None, name="emb", fill=0.0, exogenous=None):
    """A function for iota2's ``external_features.functions``.

    :param raster: the file of a tile, with ``{tile}`` in its name; the variable OTBTORCH_EMBEDDINGS
        where it is None
    :param name: how labels begin
    :param fill: what stands for no-data
    :param exogenous: attribute or method of the data container that gives the chunk's own window
        of iota2's exogenous raster; no file is read then
    :return: ``function(self, **kwargs) -> (array (rows, columns, bands), labels)``; its keyword
        arguments replace those of here, and ``tile`` and ``window`` (x, y, columns, rows) may be given
    """
    defaults = dict(raster=raster, name=name, fill=fill, exogenous=exogenous)

    def get_embeddings(self, **kwargs):
        given = {**defaults, **kwargs}
        if given["exogenous"]:
            array = _exogenous(self, given["exogenous"])
            return array, labels_of(array.shape[2], given["name"])
        pattern = given["raster"] or os.environ.get(VARIABLE)
        if not pattern:
            raise complaint("embeddings", "no raster", f"its name, with {{tile}} in it, in the module or in {VARIABLE}")
        tile = given.get("tile") or getattr(self, "tile", None) or getattr(self, "tile_name", None)
        window = given.get("window") or getattr(self, "window", None)
        if window is None or (tile is None and "{tile}" in pattern):
            calling = _of_callers()
            tile, window = tile or calling[0], window or calling[1]
        if window is None or (tile is None and "{tile}" in pattern):
            raise complaint(
                "embeddings", "no tile and window of the chunk", "a version of iota2 that tells them",
                "Give the raster as iota2's exogenous data, and name the accessor: embeddings(exogenous=...).",
            )  # fmt: skip
        array = read_window(pattern.format(tile=tile), tuple(int(v) for v in window), given["fill"])
        return array, labels_of(array.shape[2], given["name"])

    return get_embeddings


get_embeddings = embeddings()
