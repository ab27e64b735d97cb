"""Simulated series, models of all architectures, and helpers of the tests of TimeSeriesClassify.

A scene has three sensors: S2 at 10 m (a stack, and an image per date), S1 at 20 m with dates of its
own, weather at 100 m once a month; and an image that does not change. Weights are random, and the
last layer is adjusted on the scene so that all classes occur.
"""

import copy
import dataclasses
import datetime
import pathlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import BIN, EPSG, REPOSITORY, TRANSFORM, Run, command, environment, read
from osgeo import gdal, osr

sys.path.insert(0, str(REPOSITORY / "test" / "support"))

import sits_oracle  # noqa: E402

LAUNCHER = BIN / "otbcli_TimeSeriesClassify"
WIDTH, HEIGHT = 61, 47
S2_BANDS = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
SCL_VALID = [2, 4, 5, 6, 7, 11]
SCL_INVALID = [0, 1, 3, 8, 9, 10]
NODATA = -10000.0
ALL = ("out", "confmap", "probamap", "features", "entropy", "margin", "nvalid")
WITHOUT_FEATURES = tuple(name for name in ALL if name != "features")


# ---------------------------------------------------------------------------------------------
# Runs


def run(*words, threads=2, timeout=120, cwd=None, preexec=None, **parameters):
    """Runs the application to its end."""
    done = subprocess.run(
        [str(LAUNCHER)] + [str(w) for w in words] + command(**parameters),
        env=environment(threads, OMP_NUM_THREADS=1),
        cwd=cwd,
        preexec_fn=preexec,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"))


def together(jobs):
    """Results of functions without arguments, a few at a time; ``{name: result}``.

    More than two: a good part of a short run is spent waiting for the disk.
    """
    with ThreadPoolExecutor(3) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
        return {name: future.result() for name, future in futures.items()}


def pixels(paths):
    """``{output: array (bands, H, W)}`` of files."""
    return {name: np.atleast_3d(read(path).T).T for name, path in paths.items()}


def same(found, wanted, window=None):
    """Asserts that two ``pixels`` are equal, bit for bit; the first may be a window."""
    for name, array in found.items():
        whole = wanted[name]
        if window:
            x, y, w, h = window
            whole = whole[:, y : y + h, x : x + w]
        assert array.dtype == whole.dtype and array.shape == whole.shape, name
        a, b = (np.ascontiguousarray(v).view(f"u{v.itemsize}") for v in (array, whole))
        assert (a == b).all(), f"{name}: {(a != b).sum()} of {a.size} pixels"


# ---------------------------------------------------------------------------------------------
# Files


def write_raster(
    path,
    bands,
    kind=gdal.GDT_Float32,
    transform=TRANSFORM,
    epsg=EPSG,
    nodata=None,
    names=None,
    options=(),
):
    """Writes bands (B, H, W) or (H, W) as GeoTIFF with creation options; returns the path."""
    bands = np.asarray(bands)
    bands = bands[None] if bands.ndim == 2 else bands.reshape((-1,) + bands.shape[-2:])
    count, height, width = bands.shape
    driver = gdal.GetDriverByName("GTiff")
    out = driver.Create(str(path), width, height, count, kind, options=list(options))
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
        if names:
            out.GetRasterBand(k + 1).SetDescription(names[k])
    out = None
    return pathlib.Path(path)


def write_dates(path, dates):
    path.write_text("".join(f"{d:%Y%m%d}\n" for d in dates))
    return path


def days(start, gaps):
    """Dates from the first one and the days between them."""
    out = [datetime.date.fromisoformat(start)]
    for gap in gaps:
        out.append(out[-1] + datetime.timedelta(days=int(gap)))
    return out


def grid(spacing):
    """Geotransform of another resolution from the same corner."""
    x, _, _, y, _, _ = TRANSFORM
    return (x, float(spacing), 0.0, y, 0.0, -float(spacing))


def bilinear(coarse, factor, height, width):
    """(..., h, w) at ``factor`` times the resolution: half-pixel-centred, clamped at the edges."""

    def axis(size, count):
        position = np.clip((np.arange(count) + 0.5) / factor - 0.5, 0, size - 1)
        low = np.minimum(np.floor(position).astype(int), size - 2)
        return low, position - low

    coarse = np.asarray(coarse, np.float64)
    rows, down = axis(coarse.shape[-2], height)
    columns, right = axis(coarse.shape[-1], width)
    top = coarse[..., rows, :] * (1 - down)[:, None] + coarse[..., rows + 1, :] * down[:, None]
    return top[..., columns] * (1 - right) + top[..., columns + 1] * right


def nearest(coarse, factor, height, width):
    rows, columns = np.arange(height) // factor, np.arange(width) // factor
    return coarse[..., rows, :][..., columns]


# ---------------------------------------------------------------------------------------------
# The scene


@dataclasses.dataclass
class Series:
    """One sensor as written: ``values`` (T, C, h, w) on its own grid, and files."""

    bands: list
    dates: list
    values: np.ndarray
    valid: np.ndarray
    files: dict
    factor: int = 1

    def sensor(self, height=HEIGHT, width=WIDTH, names=True, nodata=None):
        """As the oracle wants it, on the 10 m grid."""
        values, valid = self.values, self.valid
        if self.factor > 1:
            values = bilinear(values, self.factor, HEIGHT, WIDTH).astype(np.float32)
            valid = nearest(valid, self.factor, HEIGHT, WIDTH)
        return sits_oracle.Sensor(
            values[..., :height, :width],
            self.dates,
            valid[..., :height, :width],
            bands=self.bands if names else None,
            nodata=nodata,
        )


@dataclasses.dataclass
class Simulation:
    """The scene; ``static`` (2, H, W)."""

    folder: pathlib.Path
    s2: Series
    s1: Series
    meteo: Series
    static: np.ndarray
    static_file: pathlib.Path

    def latlon(self, height=HEIGHT, width=WIDTH):
        """Latitude and longitude of the pixels' centres."""
        source, target = osr.SpatialReference(), osr.SpatialReference()
        source.ImportFromEPSG(EPSG)
        target.ImportFromEPSG(4326)
        target.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
        change = osr.CoordinateTransformation(source, target)
        x = TRANSFORM[0] + 10.0 * (np.arange(width) + 0.5)
        y = TRANSFORM[3] - 10.0 * (np.arange(height) + 0.5)
        points = [(a, b) for b in y for a in x]
        lonlat = np.array([p[:2] for p in change.TransformPoints(points)])
        lonlat = lonlat.reshape(height, width, 2)
        return lonlat[..., 1], lonlat[..., 0]


def clouds(rng, count, height, width, share):
    """Validity (T, H, W): blobs of clouds."""
    coarse = rng.random((count, -(-height // 5), -(-width // 5))) >= share
    fine = coarse.repeat(5, 1).repeat(5, 2)[:, :height, :width]
    return fine & (rng.random((count, height, width)) >= 0.05)


def seasons(rng, dates, means, height, width):
    """Reflectances: fields with cycles of their own, some noise."""
    fields = rng.integers(0, 6, (-(-height // 9), -(-width // 9))).repeat(9, 0).repeat(9, 1)
    fields = fields[:height, :width]
    amplitude, phase = rng.uniform(0.1, 0.8, (6, len(means))), rng.uniform(0, 6.28, (6, 1))
    angle = np.array([d.timetuple().tm_yday for d in dates]) * (2 * np.pi / 365.25)
    cycle = 1 + amplitude[..., None] * np.sin(angle + phase[..., None])  # (6, C, T)
    values = np.array(means)[:, None] * cycle  # (6, C, T)
    out = values[fields].transpose(3, 2, 0, 1)  # (T, C, H, W)
    return out * rng.normal(1.0, 0.08, out.shape)


def simulate(folder):
    """Makes the scene and writes its files."""
    rng = np.random.default_rng(11)
    dates = days("2019-12-20", [23, 31, 17, 40, 25, 33, 28, 36, 22, 41, 38])
    means = [600, 800, 900, 1300, 2200, 2600, 2700, 2800, 1900, 1200]
    values = seasons(rng, dates, means, HEIGHT, WIDTH).astype(np.float32)
    valid = clouds(rng, len(dates), HEIGHT, WIDTH, 0.35)
    valid[:, 3:6, 4:9] = False  # no valid date at all
    valid[7] = False  # a date that is all clouds
    scl = np.where(
        valid, rng.choice(SCL_VALID, valid.shape), rng.choice(SCL_INVALID, valid.shape)
    )
    values[4, 2, 20, 10:20] = np.nan
    values[2, :, 30:33, 40:50] = NODATA  # declared by the files
    values[:, 6, 0, 60] = np.inf  # a pixel without any valid date, though no mask says so
    s2 = Series(S2_BANDS, dates, values, valid, {})
    f = s2.files
    f["stack"] = write_raster(folder / "s2.tif", values, nodata=NODATA)
    f["dates"] = write_dates(folder / "s2.txt", dates)
    f["scl"] = write_raster(folder / "scl.tif", scl, gdal.GDT_Byte)
    f["valid"] = write_raster(folder / "valid.tif", 3 * valid, gdal.GDT_Byte)
    invalid = np.where(valid, 0, rng.integers(1, 3, valid.shape))
    f["images"] = [
        write_raster(folder / f"T31_{d:%Y%m%d}_S2.tif", v, nodata=NODATA, names=S2_BANDS)
        for d, v in zip(dates, values)
    ]
    f["masks"] = [
        write_raster(folder / f"mask_{d:%Y-%m-%d}.tif", m, gdal.GDT_Byte)
        for d, m in zip(dates, invalid)
    ]
    f["invalid"] = write_raster(folder / "invalid.tif", invalid, gdal.GDT_Byte)

    dates = days("2020-01-02", [30, 37, 44, 40, 51, 60, 66])
    h, w = -(-HEIGHT // 2), -(-WIDTH // 2)
    radar = (seasons(rng, dates, [6, 5], h, w) - 20).astype(np.float32)  # dB
    seen = rng.random((len(dates), h, w)) >= 0.1
    seen[0, :5] = False
    s1 = Series(["VV", "VH"], dates, radar, seen, {}, 2)
    s1.files["stack"] = write_raster(folder / "s1.tif", radar, transform=grid(20))
    s1.files["dates"] = write_dates(folder / "s1.txt", dates)
    s1.files["masks"] = write_raster(folder / "s1m.tif", seen, gdal.GDT_Byte, grid(20))

    dates = [datetime.date(2020, m, 15) for m in range(1, 13)]
    h, w = -(-HEIGHT // 10), -(-WIDTH // 10)
    weather = np.stack(
        [rng.normal(283, 8, (12, h, w)), rng.gamma(2.0, 0.03, (12, h, w))], axis=1
    ).astype(np.float32)
    names = ["temperature_2m", "total_precipitation"]
    meteo = Series(names, dates, weather, np.ones((12, h, w), bool), {}, 10)
    meteo.files["images"] = [
        write_raster(folder / f"era5_{d:%Y%m%d}.tif", v, transform=grid(100))
        for d, v in zip(dates, weather)
    ]

    static = np.stack(
        [rng.gamma(4.0, 120.0, (HEIGHT, WIDTH)), rng.gamma(2.0, 4.0, (HEIGHT, WIDTH))]
    ).astype(np.float32)
    static[:, 12, 20:25] = -32768  # no-data
    file = write_raster(folder / "dem.tif", static, nodata=-32768)
    return Simulation(folder, s2, s1, meteo, static, file)


# ---------------------------------------------------------------------------------------------
# Models

CLASSES = [(11, "wheat"), (12, "maize"), (31, "forest"), (41, "water"), (77, "roads")]
PROVENANCE = dict(license="Apache-2.0", training_data="random numbers")
FOUR = ["B8", "B2", "B4", "B3"]  # in another order than the files
FOUR_SCALING = [(2700, 1500), (600, 400), (900, 500), (800, 450)]


def small_sits():
    """(bands, scaling) of the models of four bands."""
    from otbtorch import contract as c

    return FOUR, c.z_score(*zip(*FOUR_SCALING))


def make_tempcnn_grid(c, m):
    series = c.series("x", *small_sits(), grid=("01-05", "11-25", 30))
    steps = series["otb:temporal"]["length"]
    return m.TempCNN(4, steps, 5, width=16, dense=32), c.time_series(
        "tempcnn-grid", [series], classes=CLASSES, temperature=1.3, **PROVENANCE
    )


def make_tempcnn_linear(c, m):
    bands = FOUR + [c.normalized_difference("NDVI", "B8", "B4")]
    scaling = small_sits()[1] + c.z_score(0.4, 0.2)
    series = c.series("x", bands, scaling, gapfill="linear", steps=12)
    return m.TempCNN(5, 12, 5, width=16, dense=32), c.time_series(
        "tempcnn-linear", [series], classes=CLASSES, **PROVENANCE
    )


def make_ltae(c, m, **policy):
    series = c.series("x", *small_sits(), gapfill="none", **policy)
    inputs = [series, c.dates("doy", "doy", data_type="int64"), c.validity("v", "valid")]
    return m.LTAE(4, 5, heads=4, d_model=32, embedding=16), c.time_series(
        "ltae",
        inputs,
        classes=CLASSES,
        outputs=[c.output("y", "logits"), c.output("e", "embedding", channels=16)],
        **PROVENANCE,
    )


def make_ltae_max(c, m):
    return make_ltae(c, m, policy="max", steps=16, pad_value=-3.0, pad_side="start")


def make_ltae_any(c, m):
    return make_ltae(c, m)


def make_utae(c, m):
    series = c.series("x", *small_sits(), gapfill="none", policy="max", steps=14)
    inputs = [series, c.dates("when", "days_since", reference="2018-09-01")]
    return m.UTAE(4, 5, widths=(8, 8, 8), heads=4, d_model=16), c.time_series(
        "utae", inputs, classes=CLASSES, patch=32, halo=9, multiple=4, blend="hann", **PROVENANCE
    )


def make_ubarn(c, m):
    series = c.series("x", *small_sits(), gapfill="none")
    inputs = [series, c.dates("doy", "doy"), c.validity("v", "valid", min_valid=0.2)]
    module = m.UBARN(4, 5, d_model=16, hidden=16, layers=1, heads=2, width=8, depth=1)
    return module, c.time_series(
        "ubarn",
        inputs,
        classes=CLASSES,
        outputs=[c.output("y", "logits"), c.output("e", "embedding", channels=16)],
        patch=32,
        halo=7,
        multiple=2,
        **PROVENANCE,
    )


def twinns_series(c):
    s1 = c.series(
        "s1", ["VV", "VH"], c.min_max(-30, 0), gapfill="linear", steps=8, sensor=2
    )
    bands, _ = small_sits()
    return s1, c.series("s2", bands, c.min_max(0, 5000), gapfill="linear", steps=12)


def make_twinns(c, m):
    s1, s2 = twinns_series(c)
    return m.TWINNS(8, 12, 2, 4, 5, width=8, features=8), c.time_series(
        "twinns",
        [s1, s2],
        classes=CLASSES,
        outputs=[
            c.output("y", "logits"),
            c.output("y1", "aux", channels=5),
            c.output("y2", "aux", channels=5),
            c.output("e", "embedding", channels=32),
        ],
        window=5,
        sensors=["S2", "S1"],
        **PROVENANCE,
    )


def make_twinns_single(c, m):
    _, s2 = twinns_series(c)
    return m.TWINNSSingle(12, 4, 5, width=8, features=8), c.time_series(
        "twinns-single",
        [s2],
        classes=CLASSES,
        outputs=[
            c.output("y", "logits"),
            c.output("y1", "aux", channels=5),
            c.output("y2", "aux", channels=5),
            c.output("e", "embedding", channels=16),
        ],
        window=5,
        **PROVENANCE,
    )


def make_presto(c, m):
    bands = list(m.PRESTO_BANDS)
    bands[bands.index("NDVI")] = c.normalized_difference("NDVI", "B8", "B4")
    sensor = [2, 2] + [1] * 10 + [3, 3] + [0, 0] + [1]
    series = c.series(
        "x", bands, m.PRESTO_SCALING, grid=("2020-01-15", "2020-12-10", 30), sensor=sensor
    )
    inputs = [
        series,
        c.validity("mask", "masked", granularity="band"),
        c.latlon("where"),
        c.month("month"),
    ]
    return m.Presto(5, width=32, depth=1, heads=2), c.time_series(
        "presto",
        inputs,
        classes=CLASSES,
        outputs=[c.output("y", "logits"), c.output("e", "embedding", channels=32)],
        sensors=["S2", ("S1", True), ("ERA5", True)],
        **PROVENANCE,
    )


MAKERS = {
    "tempcnn_grid": make_tempcnn_grid,
    "tempcnn_linear": make_tempcnn_linear,
    "ltae_max": make_ltae_max,
    "ltae_any": make_ltae_any,
    "utae": make_utae,
    "ubarn": make_ubarn,
    "twinns": make_twinns,
    "twinns_single": make_twinns_single,
    "presto": make_presto,
}
PATCHES = ("utae", "ubarn")


def through(folder, inputs, size, name="through", **more):
    """A model whose features are what it is fed: the path and the contract.

    ``inputs``: one series; ``size``: number of its values.
    """
    import torch
    from otbtorch import contract as c
    from otbtorch import export

    class Through(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)

    contract = c.time_series(
        name, inputs, outputs=[c.output("e", "embedding", channels=size)], **PROVENANCE, **more
    )
    path = folder / f"{name}.pt"
    export.export(Through().eval(), contract, str(path))
    return path, contract


@dataclasses.dataclass
class Case:
    """A model, and the scene as it takes it."""

    name: str
    contract: dict
    module: object
    path: pathlib.Path
    parameters: dict
    sensors: list
    static: object = None
    latlon: object = None

    @property
    def outputs(self):
        roles = [o["otb:role"] for o in self.contract["properties"]["mlm:output"]]
        return ALL if "embedding" in roles else WITHOUT_FEATURES

    def run(self, folder, outputs=None, options="", prefix="", **more):
        """Runs the model over the scene: ``{output: path}`` in ``folder``, and the run."""
        names = outputs or self.outputs
        paths = {name: pathlib.Path(folder) / f"{prefix}{name}.tif" for name in names}
        parameters = dict(self.parameters, model=self.path)
        parameters.update({name: f"{path}{options}" for name, path in paths.items()})
        parameters.update(more)
        parameters = {k: v for k, v in parameters.items() if v is not None}
        threads = parameters.pop("threads", 2)
        return paths, run(threads=threads, **parameters).ok()


def patch_grid(tiling, height=HEIGHT, width=WIDTH):
    """Corners (row, column, side) of the patches over the image, by doc/model-contract.md.

    In crop mode patch (j, i) gives what lies from (j, i) * step on; in hann mode all of it.
    """
    patch, multiple = tiling["patch"], tiling.get("multiple", 1)
    if tiling.get("blend", "crop") == "crop":
        lead = -(-tiling["halo"] // multiple) * multiple
        step, more = patch - 2 * lead, 0
    else:
        lead = step = patch // 2
        more = 1
    rows, columns = (-(-size // step) + more for size in (height, width))
    return [
        (j * step - lead, i * step - lead, patch) for j in range(rows) for i in range(columns)
    ]


def arguments(contract, sensors, static=None, latlon=None):
    """What the oracle feeds the model over the whole image."""
    tiling = contract["properties"]["otb:tiling"]
    height, width = sensors[0].values.shape[-2:]
    patches = patch_grid(tiling, height, width) if tiling.get("unit", "patch") == "patch" else None
    return sits_oracle.prepare(contract, sensors, static, latlon, patches)


def forward(module, contract, fed, dtype=None):
    """``{role: array}`` of the eager network on the oracle's arrays, in double precision."""
    import torch

    dtype = dtype or torch.float64
    module = copy.deepcopy(module).eval().to(dtype)
    tensors = [torch.from_numpy(a) for a in fed]
    tensors = [t.to(dtype) if t.is_floating_point() else t for t in tensors]
    parts = []
    with torch.no_grad():
        for k in range(0, len(tensors[0]), 512):
            made = module(*[t[k : k + 512] for t in tensors])
            parts.append(made if isinstance(made, tuple) else (made,))
    entries = contract["properties"]["mlm:output"]
    whole = [torch.cat(part).numpy() for part in zip(*parts)]
    return {entry["otb:role"]: array for entry, array in zip(entries, whole)}


def adjust(module, contract, fed):
    """The last layer so that logits over a part of the scene have mean 0 and deviation 1.5."""
    import torch

    logits = forward(module, contract, fed)["logits"]
    logits = np.moveaxis(logits, 1, -1).reshape(-1, logits.shape[1])
    with torch.no_grad():
        scale = torch.from_numpy(1.5 / (logits.std(axis=0) + 1e-3)).float()
        module.head.bias.sub_(torch.from_numpy(logits.mean(axis=0)).float())
        module.head.bias.mul_(scale)
        module.head.weight.mul_(scale.reshape((-1,) + (1,) * (module.head.weight.dim() - 1)))


def disturb(module, seed):
    """Statistics of batch normalisation as after training: not all 0 and 1."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
            size = part.running_mean.shape
            part.running_mean.copy_(0.1 * torch.randn(size, generator=generator))
            part.running_var.copy_(0.5 + torch.rand(size, generator=generator))


def build(name, simulation, folder, seed=0):
    """A :class:`Case`: a model of random weights, exported, and the scene as it takes it."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export, models

    torch.set_num_threads(1)
    torch.manual_seed(100 * seed + list(MAKERS).index(name))
    module, contract = MAKERS[name](c, models)
    module.eval()
    disturb(module, seed)

    s2, s1, meteo = simulation.s2, simulation.s1, simulation.meteo
    f = s2.files
    stack = dict(il=f["stack"], dates=f["dates"], bands=S2_BANDS)
    images = dict(il=f["images"], datesfrom="names", maskl=f["masks"])
    radar = dict(
        il2=s1.files["stack"], dates2=s1.files["dates"], maskl2=s1.files["masks"], masktype2="valid"
    )
    parameters = {
        "tempcnn_grid": dict(stack, maskl=f["scl"], masktype="scl"),
        "tempcnn_linear": images,
        "ltae_max": dict(stack, maskl=f["valid"], masktype="valid"),
        "ltae_any": dict(stack, maskl=f["invalid"]),
        "utae": images,
        "ubarn": dict(stack, maskl=f["scl"], masktype="scl"),
        "twinns": dict(stack, maskl=f["scl"], masktype="scl", **radar),
        "twinns_single": images,
        "presto": dict(images, static=simulation.static_file, il3=meteo.files["images"], **radar),
    }[name]
    if "il" in parameters and name in ("ltae_max", "tempcnn_grid"):
        parameters["in"] = parameters.pop("il")

    def sensors(height=HEIGHT, width=WIDTH):
        made = [s2.sensor(height, width, nodata=NODATA)]
        if name in ("twinns", "presto"):
            made.append(s1.sensor(height, width))
        if name == "presto":
            made.append(meteo.sensor(height, width))
        return made

    def others(height=HEIGHT, width=WIDTH):
        if name != "presto":
            return {}
        fixed = simulation.static[:, :height, :width]
        return dict(
            static=sits_oracle.Static(fixed, nodata=-32768), latlon=simulation.latlon(height, width)
        )

    part = (32, 32) if name in PATCHES else (14, 20)
    adjust(module, contract, arguments(contract, sensors(*part), **others(*part)).arguments)
    path = folder / f"{name}{seed or ''}.pt"
    export.export(module, contract, str(path))
    return Case(name, contract, module, path, parameters, sensors(), **others())


@pytest.fixture(scope="session")
def simulation(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("sits"))


@pytest.fixture(scope="session")
def case_of(simulation, tmp_path_factory):
    """Function: the :class:`Case` of a name (and seed of its weights), made once."""
    folder, made = tmp_path_factory.mktemp("sits_models"), {}

    def case(name, seed=0):
        if (name, seed) not in made:
            made[name, seed] = build(name, simulation, folder, seed)
        return made[name, seed]

    return case
