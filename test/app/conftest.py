"""Fixtures and helpers of the end-to-end tests of otbcli_SiameseCD.

The application is run as a user runs it: a command line, image files in, image files out. The
folder of the launcher is ``<repository>/build/bin``, or what ``OTBTORCH_BIN`` says; real images
are looked for in ``<repository>/../shared/data``, or where ``OTBTORCH_DATA`` says.
"""

import math
import os
import pathlib
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest
from osgeo import gdal, osr

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
BIN = pathlib.Path(os.environ.get("OTBTORCH_BIN", REPOSITORY / "build" / "bin")).resolve()
DATA = pathlib.Path(os.environ.get("OTBTORCH_DATA", REPOSITORY.parent / "shared" / "data"))
LAUNCHER = BIN / "otbcli_SiameseCD"

gdal.UseExceptions()

WIDTH, HEIGHT = 401, 347  # no multiple of anything, larger than a tile of 333
TRANSFORM = (500000.0, 10.0, 0.0, 4800000.0, 0.0, -10.0)
EPSG = 32631
OUTPUTS = {
    "unet.pt": ("out", "proba", "conf"),
    "unet_sem.pt": ("out", "proba", "sem1", "sem2", "conf"),
    "attention.pt": ("out", "proba", "conf"),
    "transition.pt": ("out", "proba", "sem1", "sem2", "conf"),
}
NODATA = {"out": 255.0, "sem1": 255.0, "sem2": 255.0, "proba": -1.0, "conf": -1.0}

_PATCHES = re.compile(
    r"Patches: (\d+) inferred, (\d+) without data skipped, (\d+) inferred again; "
    r"model calls: (\d+) \(minimum (\d+)\)"
)


@dataclass
class Run:
    """What a run of the application left behind."""

    returncode: int
    log: str

    def text(self):
        """The log with every white space as one blank: messages do not depend on line breaks."""
        return " ".join(self.log.split())

    def patches(self):
        """(inferred, empty, repeated, calls, minimum) of the summary."""
        found = _PATCHES.findall(self.log)
        assert len(found) == 1, f"one summary of patches is expected:\n{self.log}"
        return tuple(int(n) for n in found[0])

    def batch(self):
        """Patches of one model call."""
        return int(re.search(r"Batch of (\d+) patches", self.log).group(1))

    def blocks(self):
        """The largest number of blocks in which a file was written."""
        return max(map(int, re.findall(r"will be written in (\d+) blocks", self.log)))

    def warnings(self):
        return [line for line in self.log.splitlines() if "(WARNING)" in line]

    def ok(self):
        """Asserts success; returns the run."""
        assert self.returncode == 0, f"exit status {self.returncode}:\n{self.log}"
        assert "(FATAL)" not in self.log, self.log
        return self


def command(**parameters):
    """Arguments of a command line: ``in1="a.tif"`` is ``-in1 a.tif``; lists are several words."""
    words = []
    for key, value in parameters.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        words += ["-" + key] + [str(v) for v in values]
    return words


def environment(threads=2, **more):
    """The caller's environment with a number of threads."""
    env = dict(os.environ)
    env.pop("OTB_MAX_RAM_HINT", None)
    env.pop("OTB_LOGGER_LEVEL", None)
    env["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(threads)
    env.update({k: str(v) for k, v in more.items()})
    return env


def run(*words, threads=2, env=None, cwd=None, preexec=None, timeout=120, **parameters):
    """Runs the application to its end."""
    done = subprocess.run(
        [str(LAUNCHER)] + [str(w) for w in words] + command(**parameters),
        env=environment(threads) if env is None else env,
        cwd=cwd,
        preexec_fn=preexec,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"))


def run_all(model, folder, scene, options="", outputs=None, prefix="", **more):
    """Runs a model over a scene; ``{output: path}`` in ``folder`` and the run.

    ``options`` are extended-filename options, the same for each output.
    """
    names = outputs or OUTPUTS[pathlib.Path(model).name]
    paths = {name: pathlib.Path(folder) / f"{prefix}{name}.tif" for name in names}
    parameters = dict(scene.parameters(), model=model)
    parameters.update({name: f"{path}{options}" for name, path in paths.items()})
    parameters.update(more)
    threads = parameters.pop("threads", 2)
    return paths, run(threads=threads, **parameters).ok()


def stripes(height):
    """Extended-filename options: the output is written in stripes of so many rows."""
    return f"?&streaming:type=stripped&streaming:sizemode=height&streaming:sizevalue={height}"


def tiles(side):
    """Extended-filename options: the output is written in tiles of about this side."""
    return f"?&streaming:type=tiled&streaming:sizemode=height&streaming:sizevalue={side}"


def read(path):
    """All bands of an image: one array (H, W) of one band, (bands, H, W) of several."""
    return gdal.Open(str(path)).ReadAsArray()


@dataclass
class Facts:
    """What a file says of itself."""

    driver: str
    width: int
    height: int
    bands: int
    kind: str
    nodata: float
    transform: tuple
    epsg: str
    projection: str


def facts(path):
    """Facts of an image file; GDAL's objects do not outlive this function."""
    image = gdal.Open(str(path))
    band = image.GetRasterBand(1)
    system = image.GetSpatialRef()
    return Facts(
        image.GetDriver().ShortName,
        image.RasterXSize,
        image.RasterYSize,
        image.RasterCount,
        gdal.GetDataTypeName(band.DataType),
        band.GetNoDataValue(),
        image.GetGeoTransform(),
        system.GetAuthorityCode(None) if system else None,
        image.GetProjection(),
    )


def write(path, bands, transform=TRANSFORM, epsg=EPSG, nodata=None, kind=gdal.GDT_Float32):
    """Writes an array (bands, H, W) or (H, W) as GeoTIFF; returns the path."""
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands
    count, height, width = bands.shape
    out = gdal.GetDriverByName("GTiff").Create(str(path), width, height, count, kind)
    if transform is not None:
        out.SetGeoTransform(transform)
    if epsg is not None:
        system = osr.SpatialReference()
        system.ImportFromEPSG(epsg)
        out.SetProjection(system.ExportToWkt())
    for k, band in enumerate(bands):
        out.GetRasterBand(k + 1).WriteArray(band)
        if nodata is not None:
            out.GetRasterBand(k + 1).SetNoDataValue(nodata)
    out = None
    return pathlib.Path(path)


@dataclass
class Scene:
    """Two dates on one grid, as files and as arrays, with a validity mask."""

    in1: pathlib.Path
    in2: pathlib.Path
    x1: np.ndarray
    x2: np.ndarray
    mask: pathlib.Path = None
    m: np.ndarray = None
    extra: dict = field(default_factory=dict)

    def parameters(self):
        images = dict(in1=self.in1, in2=self.in2)
        return dict(images, mask=self.mask) if self.mask else images

    def valid(self, nodata=0.0, rule="all"):
        """Which pixels hold data, by doc/model-contract.md."""
        good = np.ones(self.x1.shape[1:], bool)
        for x in (self.x1, self.x2):
            good &= np.isfinite(x).all(axis=0)
            if nodata is not None:
                none = x == np.float32(nodata)
                good &= ~(none.all(axis=0) if rule == "all" else none.any(axis=0))
        return good if self.m is None else good & (self.m != 0)


def texture(rng, bands, height, width):
    """Digital numbers with structure at several scales, 100 to 9000."""
    total = np.zeros((bands, height, width))
    for cell, weight in ((1, 300.0), (7, 500.0), (31, 700.0)):
        rows, columns = -(-height // cell), -(-width // cell)
        noise = rng.standard_normal((bands, rows, columns))
        total += weight * noise.repeat(cell, 1).repeat(cell, 2)[:, :height, :width]
    return np.clip(1700.0 + total, 100, 9000).astype(np.float32)


def make_arrays(width, height, bands=4, seed=7):
    """Two dates with no-data wedges, NaN and infinite pixels, and a mask with holes."""
    rng = np.random.default_rng(seed)
    x1 = texture(rng, bands, height, width)
    x2 = np.clip(x1 + 0.6 * (texture(rng, bands, height, width) - 1700.0), 100, 9000)
    x2 = x2.astype(np.float32)
    y, x = np.mgrid[:height, :width]
    x1[:, x + 1.3 * y < 0.45 * width] = 0
    x2[:, x - 0.8 * y > 0.62 * width] = 0
    x1[0, height // 2, width // 3 : width // 3 + 9] = np.nan
    x2[bands - 1, height - 5, width // 2] = np.nan
    x1[:, height - 40, 50] = np.inf
    x2[0, height // 3 : height // 3 + 4, 5] = 0  # one band only: still data
    mask = np.ones((height, width), np.uint8)
    mask[(x - 0.7 * width) ** 2 + (y - 0.75 * height) ** 2 < (0.13 * height) ** 2] = 0
    mask[-1, :] = 0
    mask[:, 13] = 0
    return x1, x2, mask


def make_scene(folder, width, height, bands=4, seed=7):
    """Writes ``make_arrays`` to files."""
    x1, x2, mask = make_arrays(width, height, bands, seed)
    return Scene(
        write(folder / "in1.tif", x1, nodata=0),
        write(folder / "in2.tif", x2, nodata=0),
        x1,
        x2,
        write(folder / "mask.tif", mask, kind=gdal.GDT_Byte),
        mask,
    )


def margin(tiling):
    """Pixels that crop mode cuts from each side of a patch."""
    multiple = tiling.get("multiple", 1)
    return -(-tiling["halo"] // multiple) * multiple


def grid_counts(tiling, valid, window=None):
    """(patches with data, patches without) that a window needs, by doc/model-contract.md.

    ``window`` is (x, y, width, height), the whole image where not given.
    """
    height, width = valid.shape
    x, y, w, h = window or (0, 0, width, height)
    patch = tiling["patch"]
    if tiling.get("blend", "crop") == "crop":
        step, core, lead, more = patch - 2 * margin(tiling), patch - 2 * margin(tiling), 0, 0
    else:
        step, core, lead, more = patch // 2, patch, patch // 2, 1
    full = empty = 0
    for j in range(y // step, (y + h - 1) // step + 1 + more):
        for i in range(x // step, (x + w - 1) // step + 1 + more):
            rows = slice(max(0, j * step - lead), max(0, j * step - lead + core))
            columns = slice(max(0, i * step - lead), max(0, i * step - lead + core))
            if valid[rows, columns].any():
                full += 1
            else:
                empty += 1
    return full, empty


def assert_fewest_calls(done, tiling, valid, window=None):
    """Each patch with data was inferred once, in as few model calls as full batches allow."""
    full, empty = grid_counts(tiling, valid, window)
    assert done.patches() == (full, empty, 0) + (math.ceil(full / done.batch()),) * 2, done.log


def parts(folder):
    """What unfinished outputs left in a folder."""
    return sorted(p.name for p in pathlib.Path(folder).rglob("*.part-*"))


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folder of the models of otbtorch.testing."""
    import torch
    from otbtorch import testing

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    testing.write_models(str(folder))
    return folder


@pytest.fixture(scope="session")
def contract_of(models):
    """Function: the contract embedded in a model of the ``models`` folder, a fresh dict."""
    from otbtorch import contract

    return lambda name: contract.read(models / name).data


@pytest.fixture(scope="session")
def tiling_of(contract_of):
    """Function: the tiling of a model."""
    return lambda name: contract_of(name)["properties"]["otb:tiling"]


@pytest.fixture(scope="session")
def scene(tmp_path_factory):
    """The large scene, with wedges, NaN and a mask."""
    return make_scene(tmp_path_factory.mktemp("scene"), WIDTH, HEIGHT)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A small scene without a mask, for tests that need any image at all."""
    made = make_scene(tmp_path_factory.mktemp("small"), 151, 117, seed=8)
    made.mask = made.m = None
    return made


@pytest.fixture(scope="session", autouse=True)
def application_is_built():
    """Says what is missing before hundreds of tests fail one by one."""
    if not LAUNCHER.exists():
        pytest.exit(f"{LAUNCHER} is not there: build the module, or set OTBTORCH_BIN", 2)


def kill_group(process, number=signal.SIGKILL):
    """Sends a signal to a process started in its own session, and waits for its end."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass
    return process.wait(timeout=60)
