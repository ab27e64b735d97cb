"""The work of the classification step: one tile, model and seed at a time.

The functions are importable by name and take plain values, so that any scheduler can send them to
any machine. They write under a private folder of the run and rename when all is there; what fails
leaves nothing behind. They may run side by side in threads or processes, on different tasks.
"""

import os
import pathlib
import re
import shutil
import tempfile

from osgeo import gdal

from .. import launch
from . import Iota2Error, complaint
from .names import Maps, label_type, window

NO_DATA = 0
STAGE = ".otbtorch"


# ---------------------------------------------------------------------------------------------
# Models


def _members(path):
    """The models of a list (.txt), or the model itself."""
    if path.suffix != ".txt":
        return [path]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise complaint("model", f'no file at "{path}"', "a list of models") from error
    names = [line.split("#")[0].strip() for line in lines]
    return [path.parent / name for name in names if name]


def model_files(path):
    """All files that a model is made of: itself, the members of a list, contracts beside them."""
    path = pathlib.Path(path)
    models = list(dict.fromkeys([path, *(_members(path) if path.exists() else [])]))
    beside = [p for m in models for p in (m.with_name(m.name + ".mlm.json"), m.with_suffix(".mlm.json"))]
    return models + [p for p in dict.fromkeys(beside) if p.exists()]


def labels_of_model(path):
    """Ascending labels of the classes that a model knows, by its contract.

    :raises Iota2Error: no such file, no contract, or no classes in it
    """
    from .. import contract

    for member in _members(pathlib.Path(path)):
        if not member.exists():
            raise complaint("model", f'no file at "{member}"', "a TorchScript file (.pt)", "Export the model before iota2 starts.")
        try:
            outputs = contract.read(member).data["properties"]["mlm:output"]
        except (contract.ContractError, KeyError, TypeError) as error:
            raise complaint("model", f"no contract ({error})", "a model with a contract", "See doc/model-contract.md.") from error
        for output in outputs:
            classes = output.get("classification:classes")
            if classes:
                return sorted(int(c["value"]) for c in classes)
    raise complaint("model", f'"{path}", which knows no classes', "a classifier")


def model_file(output_path, parameters, model, seed):
    return pathlib.Path(output_path) / parameters["model"].format(model=model, seed=seed)


def labels_of_run(output_path, parameters, models, seeds):
    """Ascending labels of all classes of a run: those given, else those of all its models."""
    if parameters["labels"]:
        return list(parameters["labels"])
    found = set()
    for model in models:
        for seed in seeds:
            path = model_file(output_path, parameters, model, seed)
            if not path.exists():
                raise complaint(
                    "model", f'no file at "{path}"', f"the model of region {model}, seed {seed}",
                    'Export it before iota2 starts, or list the classes of all models under "labels".',
                )  # fmt: skip
            found.update(labels_of_model(path))
    return sorted(found)


# ---------------------------------------------------------------------------------------------
# Rasters


def _open(path, what):
    gdal.UseExceptions()
    try:
        return gdal.Open(str(path))
    except RuntimeError as error:
        raise complaint(what, f'"{path}", which cannot be read', "an image", str(error)) from error


def _grid(path, what):
    """(columns, rows, geotransform) of an image."""
    image = _open(path, what)
    return image.RasterXSize, image.RasterYSize, image.GetGeoTransform()


def _same_grid(path, what, columns, rows, transform):
    """Complains about an image that does not lie on the grid of the region's mask."""
    found = _grid(path, what)
    near = max(abs(a - b) for a, b in zip(found[2], transform)) <= 1e-6 * abs(transform[1])
    if found[:2] != (columns, rows) or not near:
        text = "{0} x {1} pixels from ({2[0]:g}, {2[3]:g})"
        raise complaint(what, f'{text.format(*found)} in "{path}"', f"{text.format(columns, rows, transform)}, the grid of the mask")


def _blank(path, like, bands, kind):
    """A GeoTIFF on the grid of an open image, no-data declared as there."""
    out = gdal.GetDriverByName("GTiff").Create(
        str(path), like.RasterXSize, like.RasterYSize, bands, kind, options=["INTERLEAVE=PIXEL", "BIGTIFF=IF_SAFER"]
    )
    out.SetGeoTransform(like.GetGeoTransform())
    out.SetProjection(like.GetProjection())
    return out


def _part(path, transform):
    """(columns, rows, first row) of an image that is a part of the rows of a tile."""
    found = _grid(path, "chunk")
    return found[0], found[1], round((found[2][3] - transform[3]) / transform[5])


def _known(found, labels):
    more = sorted(set(found) - set(labels))
    if more:
        raise complaint("labels", f"no {more[0]}, which the model knows", "all classes of all models of the run")


def spread_probabilities(source, target, labels):
    """Bands of a probability map by the classes of the run: those that its model does not know are 0.

    A band's label is the first word of its description, as TimeSeriesClassify writes it.
    """
    image = _open(source, "probamap")
    known = {}
    for band in range(1, image.RasterCount + 1):
        text = image.GetRasterBand(band).GetDescription()
        known[int(text.split()[0])] = (band, text)
    _known(known, labels)
    if list(known) == list(labels):
        image = None
        os.replace(source, target)
        return
    out = _blank(target, image, len(labels), gdal.GDT_UInt16)
    for k, label in enumerate(labels):
        out.GetRasterBand(k + 1).SetDescription(known[label][1] if label in known else str(label))
    rows = max(1, (64 << 20) // (2 * image.RasterXSize * len(labels)))
    for first in range(0, image.RasterYSize, rows):
        count = min(rows, image.RasterYSize - first)
        for k, label in enumerate(labels):
            if label in known:
                part = image.GetRasterBand(known[label][0]).ReadAsArray(0, first, image.RasterXSize, count)
                out.GetRasterBand(k + 1).WriteArray(part, 0, first)
    out.FlushCache()


def _stack(sources, target):
    """Parts, from top to bottom, as one image with the same pixels."""
    first = _open(sources[0], "chunk")
    virtual = gdal.BuildVRT("", [str(s) for s in sources])
    if virtual is None:
        raise Iota2Error(f"chunks of {target.name}: {gdal.GetLastErrorMsg()}")
    out = gdal.Translate(str(target), virtual, creationOptions=["INTERLEAVE=PIXEL", "BIGTIFF=IF_SAFER"])
    for band in range(1, first.RasterCount + 1):
        out.GetRasterBand(band).SetDescription(first.GetRasterBand(band).GetDescription())
    out.FlushCache()
    return out.RasterXSize, out.RasterYSize, out.GetGeoTransform()


# ---------------------------------------------------------------------------------------------
# Files that appear whole


class _Stage:
    """A folder of the task's own; ``publish`` puts what it holds where it belongs.

    In ``working_directory`` where there is one (a node's own disk), else in the run's folder. It
    lies outside ``classif``, where iota2 looks for files by their names.
    """

    def __init__(self, output_path, task, working_directory=None):
        parent = pathlib.Path(working_directory or pathlib.Path(output_path) / STAGE)
        parent.mkdir(parents=True, exist_ok=True)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix=task + "-", dir=parent))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, target):
        return self.folder / pathlib.Path(target).name

    def publish(self, targets):
        """All files are on the target's disk before the first one gets its name."""
        ready = []
        for target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f".{target.name}.part-{os.getpid()}-{self.folder.name[-8:]}")
            ready.append(part)
        try:
            for target, part in zip(targets, ready):
                shutil.move(str(self.path(target)), str(part))
            for target, part in zip(targets, ready):
                os.replace(part, target)
        finally:
            for part in ready:
                part.unlink(missing_ok=True)


def _newer(files, than):
    """Whether all files are there, and none is older than any of the others."""
    try:
        oldest = min(os.stat(f).st_mtime_ns for f in files)
        return all(oldest >= os.stat(other).st_mtime_ns for other in than)
    except OSError:
        return False


def _log(output_path, task):
    folder = pathlib.Path(output_path) / "logs" / "otbtorch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{task}.log"


def run_application(parameters, words, log, threads=None):
    """TimeSeriesClassify; raises LaunchError with its own reason."""
    threads = parameters["threads"] or threads
    env = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(threads)} if threads else None
    return launch.run("TimeSeriesClassify", words, log=log, env=env, folder=parameters["bin"])


def series(output_path, tile, parameters):
    """The words of a command line that name the series of a tile.

    :raises Iota2Error: a file that is not there
    """
    words = {}
    for k, sensor in enumerate(parameters["sensors"]):
        n = "" if k == 0 else str(k + 1)
        keys = {"stack": "in" if k == 0 else f"il{n}", "dates": f"dates{n}", "masks": f"maskl{n}"}
        for field, key in keys.items():
            if sensor[field] is None:
                continue
            path = pathlib.Path(output_path) / sensor[field].format(tile=tile)
            if not path.exists():
                hint = "iota2 writes its stacks with write_outputs." if field == "stack" else ""
                raise complaint(f"sensors[{k}].{field}", f'no file at "{path}"', f"the {field} of {sensor['name']}, tile {tile}", hint)
            words[key] = str(path)
        if sensor["masktype"]:
            words[f"masktype{n}"] = sensor["masktype"]
        if sensor["bands"]:
            words[f"bands{n}"] = sensor["bands"]
    return words


def series_files(words):
    """The files among the words of :func:`series`."""
    return [path for key, path in words.items() if not key.startswith(("bands", "masktype"))]


def options_of(output_path, tile, parameters):
    """The options of the application; names of files among them are those in the run's folder.

    ``static`` is the only one that names files. What is no path (``NETCDF:"..."``) stays as it is.

    :raises Iota2Error: a file that is not there
    """
    options = dict(parameters["options"])
    given = options.get("static")
    if given is None:
        return options
    names = []
    for name in [given] if isinstance(given, str) else given:
        if re.match(r"\w+:", name) or name.startswith("/vsi"):
            names.append(name)
            continue
        name, mark, extension = name.format(tile=tile).partition("?")
        path = pathlib.Path(output_path) / name
        if not path.exists():
            raise complaint("options.static", f'no file at "{path}"', f"an image, for tile {tile}")
        names.append(f"{path}{mark}{extension}")
    options["static"] = names[0] if isinstance(given, str) else names
    return options


# ---------------------------------------------------------------------------------------------
# Tasks


def classify_tile(
    output_path, tile, model, seed, parameters, labels, probability, chunk=None, ram=None, threads=None, working_directory=None
):
    """Classifies a tile, or one chunk of its rows, with the model of a region and seed.

    Writes, into ``<output_path>/classif``, labels (uint8, uint16 where a label of the run is beyond
    255), confidence (float32, 0 to 1) and, with ``probability``, probabilities x 1000 (uint16, a
    band per class of the run), all 0 outside of the model's region.

    :param parameters: what :func:`.parameters.check` returns
    :param labels: ascending labels of all classes of the run
    :param chunk: number of the chunk, from 0; None: the whole tile
    :param ram: MB, where the parameters do not say
    :param working_directory: a folder for what is unfinished, on the machine itself
    :return: paths of the files; they are kept as they are where they were finished, and are not
        older than the model, its members and contracts
    :raises Iota2Error: an input that is missing or does not fit, or the application's own reason
    """
    maps = Maps(os.fspath(output_path), tile, model, int(seed), chunk)
    where = f"tile {tile}, model {model}, seed {seed}" + ("" if chunk is None else f", chunk {chunk}")
    targets = maps.files(probability)
    path = model_file(output_path, parameters, model, seed)
    log = _log(output_path, maps.task)
    try:
        for what, file, expected in (
            ("model", path, "a TorchScript file (.pt)"),
            ("mask", maps.mask, "the mask of the region, which iota2 writes"),
        ):
            if not file.exists():
                raise complaint(what, f'no file at "{file}"', expected)
        columns, rows, transform = _grid(maps.mask, "mask")
        first, height = (0, rows) if chunk is None else window(rows, parameters["chunks"], chunk)
        if parameters["keep"]:
            whole = maps.whole().files(probability)
            made_with = model_files(path)
            if chunk is not None and _newer(whole, made_with):
                return [str(f) for f in whole]
            if _newer(targets, made_with) and _part(maps.labels, transform) == (columns, height, first):
                return [str(f) for f in targets]
        words = series(output_path, tile, parameters)
        _same_grid(words["in"], "sensors[0].stack", columns, rows, transform)
        if "classes" not in parameters["options"]:
            _known(labels_of_model(path), labels)
        box = f"?&box=0:{first}:{columns}:{height}" if chunk is not None else ""
        with _Stage(output_path, maps.task, working_directory) as stage:
            narrow = stage.folder / "probamap.tif"
            words.update(
                model=str(path),
                mask=str(maps.mask),
                nodatalabel=NO_DATA,
                out=[f"{stage.path(maps.labels)}{box}", label_type(labels)],
                confmap=[f"{stage.path(maps.confidence)}{box}", "float"],
                probamap=[f"{narrow}{box}", "uint16"] if probability else None,
                # Colours and names are iota2's matter; files beside the maps might be taken for maps.
                legend="off",
                ram=parameters["ram"] or ram or 256,
                **options_of(output_path, tile, parameters),
            )
            run_application(parameters, words, log, threads)
            if probability:
                spread_probabilities(narrow, stage.path(maps.probabilities), labels)
            stage.publish(targets)
    except Iota2Error as error:
        raise Iota2Error(f"{where}: {error}") from error
    except launch.LaunchError as error:
        raise Iota2Error(f"{where}: {error} (the whole log: {log})") from error
    return [str(f) for f in targets]


def merge_chunks(output_path, tile, model, seed, parameters, probability, working_directory=None):
    """Joins the chunks of a tile into the files that one task would have written, pixel for pixel.

    The files of the chunks are removed then, unless ``keep_chunks``.

    :raises Iota2Error: a chunk is missing, or is another part of the tile
    """
    maps = Maps(os.fspath(output_path), tile, model, int(seed))
    chunks = [Maps(maps.output_path, tile, model, int(seed), k) for k in range(parameters["chunks"])]
    targets = maps.files(probability)
    path = model_file(output_path, parameters, model, seed)
    names = [c.files(probability) for c in chunks]
    everything = [f for files in names for f in files]
    if parameters["keep"] and _newer(targets, model_files(path) + [f for f in everything if f.exists()]):
        _remove(everything, parameters)
        return [str(f) for f in targets]
    columns, rows, transform = _grid(maps.mask, "mask")
    for k, files in enumerate(names):
        first, height = window(rows, len(chunks), k)
        for f in files:
            if not f.exists():
                raise complaint("chunk", f'no file at "{f}"', f"chunk {k} of {len(chunks)} of tile {tile}, model {model}, seed {seed}")
            found = _part(f, transform)
            if found != (columns, height, first):
                text = f'{found[0]} x {found[1]} pixels from row {found[2]} in "{f}"'
                raise complaint("chunk", text, f"chunk {k} of {len(chunks)}", "Remove it, and classify again.")
    with _Stage(output_path, maps.task, working_directory) as stage:
        for k, target in enumerate(targets):
            made = _stack([files[k] for files in names], stage.path(target))
            if made[:2] != (columns, rows):
                raise complaint("chunk", f"{made[:2]} pixels", f"{(columns, rows)}, those of the mask")
        stage.publish(targets)
    _remove(everything, parameters)
    return [str(f) for f in targets]


def _remove(files, parameters):
    if not parameters["keep_chunks"]:
        for f in files:
            f.unlink(missing_ok=True)
