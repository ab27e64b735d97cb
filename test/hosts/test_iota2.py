"""The steps for iota2: graph, files, values; object features; external features; builders.

iota2 itself is not installable here: ``iota2_standin`` has its interfaces. Networks are linear, so
that what they say is known in NumPy.
"""

import json
import os
import pathlib
import shutil
import sys
import time

import numpy as np
import pytest
from conftest import MODELS
from osgeo import gdal, ogr, osr

try:
    import distributed
except ImportError:
    pytest.skip("dask is not installed", allow_module_level=True)

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "iota2_standin"), str(HERE.parent / "support")]

from iota2 import Iota2Builder  # noqa: E402
from iota2.graph import Graph  # noqa: E402
from iota2_rules import mosaic  # noqa: E402

from otbtorch import launch  # noqa: E402
from otbtorch.iota2 import Iota2Error, __main__, builder, classify, external_features, features, parameters, steps  # noqa: E402

gdal.UseExceptions()

WIDTH, HEIGHT = 41, 30  # of the whole scene; tiles overlap
X0, Y0, EPSG = 500000.0, 4800000.0, 32631
TILES = {"T31TCJ": (0, 24), "T31TDJ": (19, WIDTH)}  # first column, end
DATES = ["20200110", "20200414", "20200802"]
BANDS = ["B8", "B2", "B11"]  # what networks take, in this order
MEAN, STDDEV = [2500.0, 600.0, 1800.0], [900.0, 250.0, 700.0]
CLASSES = {"1": [11, 12, 31], "2": [12, 31, 41, 77]}
LABELS = [11, 12, 31, 41, 77]
CHUNKS = 2
PARAMETERS = {"chunks": CHUNKS, "execution": "local", "threads": 1, "probability": True, "options": {"device": "cpu"}}


def write(path, array, first=0, kind=gdal.GDT_Int16, nodata=None):
    """(bands, h, w) or (h, w), from a column of the scene on."""
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    path.parent.mkdir(parents=True, exist_ok=True)
    out = gdal.GetDriverByName("GTiff").Create(str(path), array.shape[2], array.shape[1], len(array), kind)
    out.SetGeoTransform((X0 + 10 * first, 10, 0, Y0, 0, -10))
    out.SetProjection(system().ExportToWkt())
    out.WriteArray(array)
    if nodata is not None:
        for b in range(len(array)):
            out.GetRasterBand(b + 1).SetNoDataValue(nodata)
    out.FlushCache()
    return path


def system():
    made = osr.SpatialReference()
    made.ImportFromEPSG(EPSG)
    return made


def read(path):
    array = gdal.Open(str(path)).ReadAsArray()
    return array[None] if array.ndim == 2 else array


def weights(model, seed):
    rng = np.random.default_rng([int(model), seed])
    count = len(CLASSES[model])
    return rng.normal(0, 0.5, (len(DATES) * len(BANDS), count)), rng.normal(0, 0.3, count)


def save(path, w, b, classes=None, outputs=None, steps=len(DATES)):
    """A network that is a matrix: logits, or an embedding."""
    import torch
    from otbtorch import contract as c
    from otbtorch import export

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(*w.shape)
            with torch.no_grad():
                self.head.weight.copy_(torch.from_numpy(w.T))
                self.head.bias.copy_(torch.from_numpy(b))

        def forward(self, x):
            return self.head(x.flatten(1))

    series = c.series("x", BANDS, c.z_score(MEAN, STDDEV), gapfill="none", steps=steps)
    contract = c.time_series(
        path.stem, [series], classes=classes and [(v, f"class {v}") for v in classes], outputs=outputs,
        license="Apache-2.0", training_data="random numbers",
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    export.export(Linear().eval(), contract, str(path))
    return path


class Run:
    """A run's folder as iota2 leaves it before the classification, and what is true."""

    def __init__(self, folder, stack, regions, models):
        self.folder = folder
        self.stack, self.regions = stack, regions
        self.models = models

    def copy(self, folder):
        shutil.copytree(self.folder, folder)
        return Run(folder, self.stack, self.regions, self.models)

    def classif(self, name):
        return self.folder / "classif" / name

    def written(self):
        return sorted(p.name for p in (self.folder / "classif").iterdir() if p.is_file())

    def features(self):
        """(dates x bands, H, W) as a network takes them."""
        index = [["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"].index(b) for b in BANDS]
        x = self.stack.reshape(len(DATES), 10, HEIGHT, WIDTH)[:, index].astype(np.float64)
        x = (x - np.array(MEAN)[:, None, None]) / np.array(STDDEV)[:, None, None]
        return x.reshape(-1, HEIGHT, WIDTH)

    def probabilities(self, model, seed):
        """(classes, H, W) over the scene, wherever the region lies."""
        w, b = weights(model, seed)
        logits = np.einsum("fhw,fk->khw", self.features(), w) + b[:, None, None]
        e = np.exp(logits - logits.max(axis=0))
        return e / e.sum(axis=0)

    def configuration(self, **more):
        path = self.folder / "i2.json"
        run = {"tiles": list(TILES), "regions": {m: list(TILES) for m in CLASSES}}
        path.write_text(
            json.dumps(
                {
                    "run": run,
                    "chain": {"outputPath": str(self.folder), "output_path": str(self.folder), "runs": 2},
                    "arg_train": {"runs": 2},
                    **more,
                }
            )
        )
        return str(path)

    def parameters(self, **more):
        (self.folder / parameters.FILE).write_text(json.dumps({**PARAMETERS, **more}))
        return parameters.read(self.folder / parameters.FILE)

    def arguments(self, tile="T31TCJ", model="1", seed=0, **more):
        return dict(output_path=str(self.folder), tile=tile, model=model, seed=seed, labels=LABELS, probability=True, **more)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Stacks, dates, masks of two regions in two tiles, models of two seeds."""
    folder = tmp_path_factory.mktemp("iota2") / "run"
    rng = np.random.default_rng(5)
    stack = rng.integers(200, 4500, (10 * len(DATES), HEIGHT, WIDTH)).astype(np.int16)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    regions = np.where(x + 0.7 * y < 28, 1, 2)
    regions[-2:] = 0  # outside of both
    for tile, (first, end) in TILES.items():
        tmp = folder / "features" / tile / "tmp"
        write(tmp / f"Sentinel2_{tile}_TSG.tif", stack[..., first:end], first)
        (tmp / f"Sentinel2_{tile}_interpolation_dates.txt").write_text("\n".join(DATES) + "\n")
        for model in CLASSES:
            mask = (regions[:, first:end] == int(model)).astype(np.uint8)
            write(folder / "classif" / "MASK" / f"MASK_region_{model}_{tile}.tif", mask, first, gdal.GDT_Byte)
    models = {}
    for model, classes in CLASSES.items():
        for seed in range(2):
            models[model, seed] = save(folder / "model" / f"model_{model}_seed_{seed}.pt", *weights(model, seed), classes)
    return Run(folder, stack, regions, models)


@pytest.fixture(scope="module")
def cluster():
    """A LocalCluster of two processes, which find this package and iota2 as a user's would."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "iota2_standin"), str(HERE.parents[1] / "python"), before or ""])
    try:
        with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as made:
            with distributed.Client(made) as client:
                yield client
    finally:
        os.environ["PYTHONPATH"] = before or ""


@pytest.fixture(autouse=True)
def fresh():
    """iota2's steps keep their state in their class."""
    Graph.reset()
    yield
    Graph.reset()


@pytest.fixture(scope="module")
def done(prepared, cluster, tmp_path_factory):
    """The whole chain in chunks: learning, our two steps, mosaic, as the builder puts them together."""
    Graph.reset()
    run = prepared.copy(tmp_path_factory.mktemp("chunks") / "run")
    for path in (run.folder / "model").glob("*.pt"):  # they come to be when the graph runs
        path.rename(str(path) + ".untrained")
    run.parameters(labels=LABELS)
    chain = builder.builder_2020()(run.configuration(), None)
    assert [s.func.__name__ for s in chain.steps] == ["learnModel", "TorchClassification", "TorchClassificationMerge", "mosaic"]
    graph = chain.get_final_i2_exec_graph(0, 3)
    assert cluster.submit(graph.compute).result() is True
    return run


# ---------------------------------------------------------------------------------------------
# The step


def test_files_are_those_of_iota2(done):
    """Two tiles, two regions, two seeds: three files each, chunks merged and gone."""
    names = []
    for tile in TILES:
        for model in CLASSES:
            for seed in range(2):
                names += [
                    f"Classif_{tile}_model_{model}_seed_{seed}.tif",
                    f"{tile}_model_{model}_confidence_seed_{seed}.tif",
                    f"PROBAMAP_{tile}_model_{model}_seed_{seed}.tif",
                ]
    assert done.written() == sorted(names)
    assert list((done.folder / classify.STAGE).iterdir()) == []


def test_types_bands_and_grid(done):
    for tile, (first, end) in TILES.items():
        for model in CLASSES:
            for name, kind, bands in (
                (f"Classif_{tile}_model_{model}_seed_1", "Byte", 1),
                (f"{tile}_model_{model}_confidence_seed_1", "Float32", 1),
                (f"PROBAMAP_{tile}_model_{model}_seed_1", "UInt16", len(LABELS)),
            ):
                image = gdal.Open(str(done.classif(f"{name}.tif")))
                assert gdal.GetDataTypeName(image.GetRasterBand(1).DataType) == kind, name
                assert (image.RasterCount, image.RasterXSize, image.RasterYSize) == (bands, end - first, HEIGHT)
                assert image.GetGeoTransform() == pytest.approx((X0 + 10 * first, 10, 0, Y0, 0, -10))
                assert image.GetSpatialRef().GetAuthorityCode(None) == str(EPSG)


@pytest.mark.parametrize("model", CLASSES)
@pytest.mark.parametrize("seed", [0, 1])
def test_values_are_the_networks_inside_the_region(done, model, seed):
    """Labels, confidence, probabilities in the classes of the run; 0 outside of the region."""
    p = done.probabilities(model, seed)
    order = np.sort(p, axis=0)
    bands = [LABELS.index(v) for v in CLASSES[model]]
    for tile, (first, end) in TILES.items():
        at = np.s_[..., first:end]
        inside = done.regions[at] == int(model)
        assert inside.any() and not inside.all()
        labels = read(done.classif(f"Classif_{tile}_model_{model}_seed_{seed}.tif"))[0]
        sure = inside & (order[-1] - order[-2] > 1e-4)[at]
        assert (labels == np.array(CLASSES[model])[p.argmax(axis=0)][at])[sure].all()
        assert set(np.unique(labels)) <= {0, *CLASSES[model]} and len(np.unique(labels)) > 2
        confidence = read(done.classif(f"{tile}_model_{model}_confidence_seed_{seed}.tif"))[0]
        assert np.abs(confidence - order[-1][at])[inside].max() < 1e-5
        probabilities = read(done.classif(f"PROBAMAP_{tile}_model_{model}_seed_{seed}.tif"))
        assert np.abs(probabilities[bands] - 1000 * p[at])[:, inside].max() < 0.52
        others = [k for k in range(len(LABELS)) if k not in bands]
        assert (probabilities[others] == 0).all()
        for map_ in (labels[None], confidence[None], probabilities):
            assert (map_[:, ~inside] == 0).all()


def test_bands_of_probabilities_are_named_by_label(done):
    image = gdal.Open(str(done.classif("PROBAMAP_T31TCJ_model_1_seed_0.tif")))
    found = [image.GetRasterBand(k + 1).GetDescription() for k in range(image.RasterCount)]
    assert [int(text.split()[0]) for text in found] == LABELS
    assert found[0] == "11 class 11"


def test_mosaic_is_the_scene(done):
    """final/ by iota2's rules: both regions of both tiles, each pixel once."""
    for seed in range(2):
        parts = {"Classif": [], "PROBAMAP": [], "confidence": []}
        for tile, (first, _) in TILES.items():
            for model in CLASSES:
                parts["Classif"].append((first, read(done.classif(f"Classif_{tile}_model_{model}_seed_{seed}.tif"))))
                parts["PROBAMAP"].append((first, read(done.classif(f"PROBAMAP_{tile}_model_{model}_seed_{seed}.tif"))))
                parts["confidence"].append((first, read(done.classif(f"{tile}_model_{model}_confidence_seed_{seed}.tif"))))
        labels = read(done.folder / "final" / f"Classif_Seed_{seed}.tif")
        assert (labels == mosaic(parts["Classif"], (1, HEIGHT, WIDTH))).all()
        assert ((labels[0] > 0) == (done.regions > 0)).all()
        percent = read(done.folder / "final" / f"Confidence_Seed_{seed}.tif")
        assert percent.dtype == np.uint8 and 20 < percent.max() <= 100
        assert (percent == np.round(100 * mosaic(parts["confidence"], (1, HEIGHT, WIDTH)))).all()
        probabilities = read(done.folder / "final" / f"ProbabilityMap_seed_{seed}.tif")
        assert (probabilities == mosaic(parts["PROBAMAP"], (len(LABELS), HEIGHT, WIDTH))).all()
        best = np.array(LABELS)[probabilities.argmax(axis=0)]
        ties = np.diff(np.sort(probabilities, axis=0)[-2:].astype(int), axis=0)[0] <= 1
        assert ((best == labels[0]) | ties)[done.regions > 0].all()


def test_without_chunks_the_files_are_the_same(prepared, done, cluster, tmp_path):
    """Our step as the first of the run, which waits for nothing; labels are those of the models."""
    run = prepared.copy(tmp_path / "run")
    run.parameters(chunks=1)
    chain = builder.builder_2020()(run.configuration(), None)
    assert len(chain.steps) == 3
    assert chain.get_final_i2_exec_graph(1, 1).compute() is True
    assert run.written() == done.written()
    for name in run.written():
        a, b = gdal.Open(str(run.classif(name))), gdal.Open(str(done.classif(name)))
        assert (a.ReadAsArray() == b.ReadAsArray()).all(), name
        assert a.GetGeoTransform() == b.GetGeoTransform()
        for k in range(a.RasterCount):
            one, two = a.GetRasterBand(k + 1), b.GetRasterBand(k + 1)
            assert (one.DataType, one.GetNoDataValue(), one.GetDescription()) == (two.DataType, two.GetNoDataValue(), two.GetDescription())


def test_a_restart_keeps_what_is_finished(done, cluster, tmp_path, monkeypatch):
    """Only what is missing is made again: there is no application to make anything else with."""
    run = done.copy(tmp_path / "run")
    given = run.parameters(labels=LABELS, bin=str(tmp_path))  # nothing there
    before = {name: run.classif(name).stat().st_mtime_ns for name in run.written()}
    chain = builder.builder_2020()(run.configuration(), None)
    assert chain.get_final_i2_exec_graph(1, 3).compute() is True
    assert before == {name: run.classif(name).stat().st_mtime_ns for name in run.written()}
    run.classif("PROBAMAP_T31TCJ_model_1_seed_0.tif").unlink()
    with pytest.raises(Iota2Error, match="otbcli_TimeSeriesClassify is not found"):
        classify.classify_tile(**run.arguments(parameters=given, chunk=1))
    os.utime(run.folder / "model" / "model_2_seed_1.pt")  # trained again: its maps are old
    with pytest.raises(Iota2Error, match="tile T31TDJ, model 2, seed 1, chunk 0: .* is not found"):
        classify.classify_tile(**run.arguments("T31TDJ", "2", 1, parameters=given, chunk=0))


def test_a_member_or_contract_that_changed_makes_maps_old(prepared, tmp_path):
    """Of an ensemble the list stays as it is; without the application nothing can be made again."""
    run = prepared.copy(tmp_path / "run")
    path = run.folder / "model" / "model_1_seed_0.txt"
    path.write_text("model_1_seed_0.pt\nmodel_1_seed_1.pt\n")
    more = dict(model="model/model_{model}_seed_{seed}.txt", labels=LABELS, probability=False)
    given = run.parameters(**more, keep_chunks=True)
    parts = [classify.classify_tile(**run.arguments(parameters=given, chunk=k)) for k in range(CHUNKS)]
    merge = dict(output_path=str(run.folder), tile="T31TCJ", model="1", seed=0, probability=True)
    whole = classify.merge_chunks(**merge, parameters=given)
    stamps = [os.stat(f).st_mtime_ns for f in whole]
    nothing = run.parameters(**more, keep_chunks=True, bin=str(tmp_path))
    call = run.arguments(parameters=nothing, chunk=0)
    assert classify.classify_tile(**call) == whole and classify.merge_chunks(**merge, parameters=nothing) == whole
    assert [os.stat(f).st_mtime_ns for f in whole] == stamps
    later = max(os.stat(f).st_mtime for part in [*parts, whole] for f in part) + 10
    member = run.folder / "model" / "model_1_seed_1.pt"
    before = os.stat(member)
    os.utime(member, (later, later))
    with pytest.raises(Iota2Error, match="is not found"):
        classify.classify_tile(**call)
    classify.merge_chunks(**merge, parameters=nothing)
    assert [os.stat(f).st_mtime_ns for f in whole] != stamps
    os.utime(member, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert classify.classify_tile(**call) == whole
    beside = member.with_suffix(".mlm.json")
    beside.write_text("{}")
    os.utime(beside, (later, later))
    with pytest.raises(Iota2Error, match="is not found"):
        classify.classify_tile(**call)


def test_a_model_that_fails_says_so_and_leaves_nothing(prepared, cluster, tmp_path):
    """The other tasks are done; the graph ends with the application's own reason."""
    run = prepared.copy(tmp_path / "run")
    w = np.zeros(((len(DATES) + 1) * len(BANDS), 4))  # it wants another date
    save(run.folder / "model" / "model_2_seed_1.pt", w, w[0], CLASSES["2"], steps=len(DATES) + 1)
    run.parameters(labels=LABELS, chunks=1)
    chain = builder.builder_2020()(run.configuration(), None)
    with pytest.raises(
        Iota2Error,
        match=r"T31T[CD]J, model 2, seed 1: TimeSeriesClassify: .* found 3 dates; expected 4.*otbtorch/T31T[CD]J_model_2_seed_1.log",
    ):
        chain.get_final_i2_exec_graph(1, 2).compute()
    assert not any("model_2" in name and "seed_1" in name for name in run.written())
    stage = run.folder / classify.STAGE
    for _ in range(300):  # another worker may be at work still
        if not list(stage.iterdir()):
            break
        time.sleep(0.1)
    assert list(stage.iterdir()) == []
    assert not (run.folder / "final").exists()
    assert not list(run.folder.rglob("*.part-*"))


# ---------------------------------------------------------------------------------------------
# The worker's function


def test_labels_beyond_255_are_written_as_uint16(prepared, tmp_path):
    run = prepared.copy(tmp_path / "run")
    given = run.parameters(chunks=1, labels=LABELS + [300])
    call = {**run.arguments(parameters=given), "labels": LABELS + [300]}
    files = classify.classify_tile(**call, working_directory=str(tmp_path / "disk"))
    image = gdal.Open(files[-1])
    assert gdal.GetDataTypeName(image.GetRasterBand(1).DataType) == "UInt16"
    assert gdal.Open(files[0]).RasterCount == len(LABELS) + 1
    assert list((tmp_path / "disk").iterdir()) == []


def test_parts_of_a_region_share_its_mask(prepared, tmp_path):
    """Model 1f2 is a part of region 1; without a probability map there is none."""
    run = prepared.copy(tmp_path / "run")
    shutil.copy(run.folder / "model" / "model_1_seed_0.pt", run.folder / "model" / "model_1f2_seed_0.pt")
    files = classify.classify_tile(**{**run.arguments(model="1f2", parameters=run.parameters(chunks=1)), "probability": False})
    assert [pathlib.Path(f).name for f in files] == ["T31TCJ_model_1f2_confidence_seed_0.tif", "Classif_T31TCJ_model_1f2_seed_0.tif"]
    assert ((read(files[1])[0] > 0) == (run.regions[:, : TILES["T31TCJ"][1]] == 1)).all()


def test_two_sensors_with_masks_and_a_window(prepared, tmp_path):
    """The shipped model of Sentinel-2 and Sentinel-1, which sees 5 x 5 pixels, on raw series: as the application alone; chunks have no seams."""
    run = prepared.copy(tmp_path / "run")
    tile, tmp = "T31TCJ", run.folder / "features/T31TCJ/tmp"
    first, end = TILES[tile]
    rng = np.random.default_rng(3)
    shutil.copy(tmp / f"Sentinel2_{tile}_TSG.tif", tmp / f"Sentinel2_{tile}_TS.tif")
    shutil.copy(tmp / f"Sentinel2_{tile}_interpolation_dates.txt", tmp / f"Sentinel2_{tile}_input_dates.txt")
    clouds = rng.integers(0, 3, (len(DATES), HEIGHT, end - first))
    clouds[0] = 0
    write(tmp / f"Sentinel2_{tile}_MASKS.tif", clouds, first, gdal.GDT_Byte)
    write(tmp / "s1.tif", rng.uniform(-22, -8, (6, HEIGHT, end - first)), first, gdal.GDT_Float32)
    sensors = [
        {"name": "Sentinel2", "series": "raw"},
        {"name": "Sentinel1", "stack": "features/{tile}/tmp/s1.tif", "dates": f"features/{{tile}}/tmp/Sentinel2_{tile}_input_dates.txt"},
    ]
    model = MODELS / "sits-s1s2-crops.pt"
    given = dict(model=str(model), sensors=sensors, keep=False, options={"device": "cpu", "batch": 16})
    labels = classify.labels_of_model(model)
    call = {**run.arguments(parameters=run.parameters(**{**given, "chunks": 1})), "labels": labels}
    whole = [read(f) for f in classify.classify_tile(**call)]
    alone = [tmp_path / f"{key}.tif" for key in ("probamap", "confmap", "out")]
    bands = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
    launch.run(
        "TimeSeriesClassify",
        {"il": tmp / f"Sentinel2_{tile}_TS.tif", "dates": tmp / f"Sentinel2_{tile}_input_dates.txt", "bands": bands,
         "maskl": tmp / f"Sentinel2_{tile}_MASKS.tif", "il2": tmp / "s1.tif", "dates2": tmp / f"Sentinel2_{tile}_input_dates.txt",
         "model": model, "device": "cpu", "batch": 16, **{f.stem: f for f in alone}},
    )  # fmt: skip
    inside = run.regions[:, first:end] == 1
    for ours, theirs in zip(whole, alone):
        assert (ours == np.where(inside, read(theirs), 0)).all() and ours.any()
    given["chunks"] = 2
    for chunk in range(2):
        classify.classify_tile(**{**call, "parameters": run.parameters(**given)}, chunk=chunk)
    del call["labels"]
    merged = classify.merge_chunks(**{**call, "parameters": run.parameters(**given)})
    for path, array in zip(merged, whole):
        assert (read(path) == array).all(), path


def test_what_is_missing_is_said_before_anything_runs(prepared, tmp_path):
    run = prepared.copy(tmp_path / "run")
    given = run.parameters(chunks=1)
    with pytest.raises(Iota2Error, match="tile T31TCJ, model 3, seed 0: model: found no file at .*model_3_seed_0.pt"):
        classify.classify_tile(**run.arguments(model="3", parameters=given))
    with pytest.raises(Iota2Error, match="labels: found no 12, which the model knows"):
        classify.classify_tile(**{**run.arguments(parameters=given), "labels": [11, 31]})
    write(run.folder / "classif" / "MASK" / "MASK_region_2_T31TCJ.tif", np.ones((HEIGHT, 20)), 0, gdal.GDT_Byte)
    with pytest.raises(Iota2Error, match="24 x 30 pixels .*expected 20 x 30 pixels .* the grid of the mask"):
        classify.classify_tile(**run.arguments(model="2", parameters=given))
    (run.folder / "features/T31TCJ/tmp/Sentinel2_T31TCJ_TSG.tif").unlink()
    with pytest.raises(Iota2Error, match=r"sensors\[0\].stack: found no file .* write_outputs"):
        classify.classify_tile(**run.arguments(parameters=given))
    assert run.written() == []


def test_chunks_of_another_division_are_refused(prepared, tmp_path):
    run = prepared.copy(tmp_path / "run")
    given = run.parameters(chunks=2)
    for chunk in range(2):
        classify.classify_tile(**run.arguments(parameters=given, chunk=chunk))
    call = {k: v for k, v in run.arguments().items() if k != "labels"}
    with pytest.raises(Iota2Error, match="chunk: found .* in .*SUBREGION_0.tif.*expected chunk 0 of 3"):
        classify.merge_chunks(**call, parameters=run.parameters(chunks=3))
    run.classif("Classif_T31TCJ_model_1_seed_0_SUBREGION_1.tif").unlink()
    with pytest.raises(Iota2Error, match="chunk: found no file at .*SUBREGION_1.tif"):
        classify.merge_chunks(**call, parameters=given)
    assert not run.classif("Classif_T31TCJ_model_1_seed_0.tif").exists()


def test_without_iota2(prepared, done, tmp_path, capsys):
    """The command finds models and masks by their names, and writes what the step writes."""
    run = prepared.copy(tmp_path / "run")
    run.parameters(chunks=3, labels=LABELS)
    for path in run.folder.rglob("*_T31TDJ.tif"):
        path.unlink()
    for model in CLASSES:
        (run.folder / "model" / f"model_{model}_seed_1.pt").unlink()
    assert __main__.main(["--output-path", str(run.folder), "--workers", "2"]) == 0
    assert run.written() == [name for name in done.written() if "T31TCJ" in name and "seed_0" in name]
    for name in run.written():
        assert (read(run.classif(name)) == read(done.classif(name))).all(), name
    (run.folder / "model" / "model_2_seed_0.pt").rename(run.folder / "model" / "model_2_seed_1.pt")
    assert __main__.main(["--output-path", str(run.folder)]) == 2
    assert "no file at" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------
# Builders


def test_the_step_asks_for_the_keys_of_iota2(prepared, tmp_path):
    """Groups, names and dependencies that iota2's other steps rely on."""
    run = prepared.copy(tmp_path / "run")
    chain = steps.Chain(str(run.folder), tuple(TILES), {"1": ("T31TCJ",), "2": tuple(TILES)}, 1, run.parameters())
    tasks = steps.classification_tasks(chain)
    assert len(tasks) == 3 * CHUNKS and {t.group for t in tasks} == {"tile_tasks_model_mode"}
    assert tasks[CHUNKS + 1].sub_group == "T31TCJ_2_0_usually_1"
    assert tasks[CHUNKS + 1].dependencies == {"region_tasks": ["model_2_seed_0_usually"]}
    merged = steps.merge_tasks(chain)[1]
    assert merged.sub_group == "T31TCJ_2_0_usually"
    assert merged.dependencies == {"tile_tasks_model_mode": [f"T31TCJ_2_0_usually_{k}" for k in range(CHUNKS)]}


def test_current_names(prepared, done, cluster, tmp_path, monkeypatch):
    """Through builders_paths, as far as its names are what we take them to be."""
    import importlib.util

    run = prepared.copy(tmp_path / "run")
    run.parameters(chunks=2, probability=None)
    file = pathlib.Path(builder.__file__).parent / "builders" / "i2_torch_classification.py"
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    cfg = run.configuration(arg_classification={"enable_probability_map": False})
    chain = module.I2TorchClassification(cfg, None)
    made = chain.steps[0].container
    assert [s.func.__name__ for s in made] == ["TorchClassification", "TorchClassificationMerge", "Mosaic"]
    Graph.set_models_spatial_information(["T31TCJ"], {"1": {"tiles": ["T31TCJ"]}})
    for step in made[:2]:
        step()
    assert Graph.get_exec_graph().compute() is True
    names = [f"{kind}_seed_{seed}.tif" for kind in ("Classif_T31TCJ_model_1", "T31TCJ_model_1_confidence") for seed in range(2)]
    assert run.written() == sorted(names)
    for name in names:
        assert (read(run.classif(name)) == read(done.classif(name))).all()


def test_a_chain_that_does_not_classify_is_refused(prepared, tmp_path):
    from functools import partial

    from iota2.Steps import theirs
    from iota2.Steps.IOTA2Step import StepContainer

    from otbtorch.iota2 import steps_2020

    made = StepContainer()
    made.append(partial(theirs.mosaic, "x"), "mosaic")
    with pytest.raises(Iota2Error, match="build_steps: found no classification step"):
        builder.insert_steps(made, steps_2020, ("x", None, None), parameters.check({}))


def test_sar_fusion_is_refused(prepared, tmp_path):
    run = prepared.copy(tmp_path / "run")
    run.parameters()
    cfg = run.configuration(argTrain={"dempster_shafer_SAR_Opt_fusion": True})
    chain = builder.builder_2020()(cfg, None)
    with pytest.raises(Iota2Error, match="argTrain.dempster_shafer_SAR_Opt_fusion: found true"):
        chain.get_final_i2_exec_graph(1, 1)


# ---------------------------------------------------------------------------------------------
# Objects

DIMENSIONS = 4


def embedding_weights():
    rng = np.random.default_rng(77)
    return rng.normal(0, 1, (len(DATES) * len(BANDS), DIMENSIONS)), rng.normal(0, 1, DIMENSIONS)


def segments(path, boxes, first, epsg=EPSG):
    """Rectangles (x0, y0, x1, y1) in pixels of a tile, each with an id and a class."""
    layers = ogr.GetDriverByName("GPKG").CreateDataSource(str(path))
    other = system()
    other.ImportFromEPSG(epsg)
    other.SetAxisMappingStrategy(osr.OAMS_TRADITIONAL_GIS_ORDER)
    layer = layers.CreateLayer("objects", other, ogr.wkbPolygon)
    change = osr.CoordinateTransformation(system(), other)
    for name in ("id", "code"):
        layer.CreateField(ogr.FieldDefn(name, ogr.OFTInteger))
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        feature = ogr.Feature(layer.GetLayerDefn())
        feature.SetField("id", number)
        feature.SetField("code", number % 2 + 1)
        x, y = [X0 + 10 * (first + v) for v in (x0, x1)], [Y0 - 10 * v for v in (y0, y1)]
        ring = ", ".join(f"{a} {b}" for a, b in ((x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1]), (x[0], y[0])))
        polygon = ogr.CreateGeometryFromWkt(f"POLYGON (({ring}))")
        polygon.Transform(change)
        feature.SetGeometry(polygon)
        layer.CreateFeature(feature)
    return path


def table(path):
    """{column: values in the order of id}; None where a cell is empty."""
    layers = ogr.Open(str(path))
    rows = sorted((f.items() for f in layers.GetLayer(0)), key=lambda row: row["id"])
    return {name: [row[name] for row in rows] for name in rows[0]}


BOXES = [(0, 0, 7, 9), (7, 0, 20, 4), (8, 6, 20, 25), (0, 12, 6, 30), (21.1, 1.1, 21.3, 1.3), (0, 9, 3, 12)]


@pytest.fixture(scope="module")
def objects(prepared, cluster, tmp_path_factory):
    """The feature step at the end of a run, after the mosaic, and what it wrote."""
    Graph.reset()
    from otbtorch import contract as c

    run = prepared.copy(tmp_path_factory.mktemp("objects") / "run")
    run.stack = run.stack.copy()
    w, b = embedding_weights()
    save(run.folder / "model" / "encoder.pt", w, b, outputs=[c.output("e", "embedding", channels=DIMENSIONS)])
    tile, (first, end) = "T31TCJ", TILES["T31TCJ"]
    run.stack[:, 9:12, :3] = -10000  # a whole object, and a bit of another one, without data
    run.stack[:, 20:22, 0:2] = -10000
    write(run.folder / f"features/{tile}/tmp/Sentinel2_{tile}_TSG.tif", run.stack[..., first:end], first, nodata=-10000)
    for name, (start, _) in TILES.items():
        # One of them in another system than the raster's.
        segments(run.folder / f"segments_{name}.gpkg", BOXES, start, EPSG if name == tile else 4326)
    run.parameters(
        chunks=1, probability=False, embedding={"model": "model/encoder.pt"},
        objects={"segmentation": "segments_{tile}.gpkg", "statistics": ["mean", "std", "count"]},
    )  # fmt: skip
    few = {"tiles": list(TILES), "regions": {"1": ["T31TCJ"]}}  # maps that the objects wait for
    chain = builder.builder_2020()(run.configuration(run=few), None)
    assert [s.func.__name__ for s in chain.steps][1:] == ["TorchClassification", "mosaic", "TorchObjectFeatures"]
    assert chain.get_final_i2_exec_graph(1, 3).compute() is True
    return run


def test_embeddings_of_a_tile(objects):
    w, b = embedding_weights()
    first, end = TILES["T31TCJ"]
    wanted = (np.einsum("fhw,fk->khw", objects.features(), w) + b[:, None, None])[..., first:end]
    image = gdal.Open(str(objects.folder / "features/T31TCJ/tmp/T31TCJ_embedding.tif"))
    found, valid = image.ReadAsArray(), objects.stack[0][:, first:end] > -10000
    assert image.GetRasterBand(1).GetNoDataValue() == -9999 and found.dtype == np.float32
    assert np.abs(found - wanted)[:, valid].max() < 1e-4 and (found[:, ~valid] == -9999).all()


@pytest.mark.parametrize("tile", TILES)
def test_statistics_of_objects_are_numpys(objects, tile):
    """Mean and deviation (n - 1) over the pixels with data; objects without any are empty."""
    found = table(objects.folder / f"features/{tile}/{tile}_objects.gpkg")
    assert list(found) == ["id", "code", "count"] + [f"{s}_{k}" for k in range(DIMENSIONS) for s in ("mean", "stdev")]
    array = read(objects.folder / f"features/{tile}/tmp/{tile}_embedding.tif").astype(float)
    empty = 0
    for row, (x0, y0, x1, y1) in enumerate(BOXES):
        cut = array[:, int(np.ceil(y0 - 0.5)) : int(np.ceil(y1 - 0.5)), int(np.ceil(x0 - 0.5)) : int(np.ceil(x1 - 0.5))]
        values = cut.reshape(DIMENSIONS, -1)
        pixels = values.shape[1]
        values = values[:, values[0] != -9999]
        if not values.shape[1]:
            empty += 1
            assert found["count"][row] == 0 and all(found[f"{s}_{k}"][row] is None for s in ("mean", "stdev") for k in range(DIMENSIONS))
            continue
        assert found["count"][row] == pixels
        for k in range(DIMENSIONS):
            assert found[f"mean_{k}"][row] == pytest.approx(values[k].mean(), abs=1e-5)
            assert found[f"stdev_{k}"][row] == pytest.approx(values[k].std(ddof=1), abs=1e-5)
    assert empty == (2 if tile == "T31TCJ" else 1)


def test_embeddings_are_old_when_any_input_changed(objects, tmp_path):
    """Stack, dates, masks of all sensors, the model's contract."""
    run = objects.copy(tmp_path / "run")
    tmp = run.folder / "features/T31TCJ/tmp"
    for name in ("s1.tif", "s1.txt", "s1_masks.tif", "dem.tif"):
        (tmp / name).touch()
    one = {"name": "Sentinel1", "stack": "features/{tile}/tmp/s1.tif", "dates": "features/{tile}/tmp/s1.txt", "masks": "features/{tile}/tmp/s1_masks.tif"}
    given = run.parameters(
        chunks=1, probability=False, embedding={"model": "model/encoder.pt"}, sensors=[{"name": "Sentinel2"}, one], bin=str(tmp_path),
        options={"static": "features/{tile}/tmp/dem.tif"},
    )  # fmt: skip
    target = tmp / "T31TCJ_embedding.tif"
    contract = run.folder / "model" / "encoder.mlm.json"
    contract.write_text("{}")
    os.utime(target)
    later = os.stat(target).st_mtime + 10
    assert features.embed(str(run.folder), "T31TCJ", given) == str(target)
    for changed in (tmp / "Sentinel2_T31TCJ_interpolation_dates.txt", tmp / "s1.tif", tmp / "s1.txt", tmp / "s1_masks.tif", tmp / "dem.tif", contract):
        os.utime(changed, (later, later))
        with pytest.raises(Iota2Error, match="is not found"):
            features.embed(str(run.folder), "T31TCJ", given)
        os.utime(changed, (1, 1))
    assert features.embed(str(run.folder), "T31TCJ", given) == str(target)


@pytest.mark.parametrize("name", ["found", "zones"])
def test_a_table_may_have_any_name(objects, tmp_path, name):
    raster = objects.folder / "features/T31TCJ/tmp/T31TCJ_embedding.tif"
    segmentation = objects.folder / "segments_T31TCJ.gpkg"
    wanted = features.zonal_statistics(raster, segmentation, tmp_path / f"{name}.gpkg", ["mean"])
    assert len(wanted) == DIMENSIONS and sorted(p.name for p in tmp_path.iterdir()) == [f"{name}.gpkg"]
    assert ogr.Open(str(tmp_path / f"{name}.gpkg")).GetLayer(0).GetLayerDefn().GetFieldIndex("mean_0") >= 0


def test_columns_to_learn_from_are_listed(objects, tmp_path):
    """OTB's TrainVectorClassifier and VectorClassifier take the table and the list as they are."""
    names = (objects.folder / "features/T31TCJ/T31TCJ_objects_stats_label.txt").read_text().split()
    assert names == ["count"] + [f"{s}_{k}" for k in range(DIMENSIONS) for s in ("mean", "stdev")]
    whole = objects.folder / "features/T31TDJ/T31TDJ_objects.gpkg"
    learning = tmp_path / "learning.gpkg"
    gdal.VectorTranslate(str(learning), str(whole), options=["-where", "count > 0"])
    launch.run(
        "TrainVectorClassifier",
        {"io.vd": learning, "feat": names[1:], "cfield": "code", "classifier": "rf", "classifier.rf.min": 1,
         "classifier.rf.nbtrees": 20, "io.out": tmp_path / "rf.txt"},
    )  # fmt: skip
    launch.run(
        "VectorClassifier",
        {"in": learning, "model": tmp_path / "rf.txt", "feat": names[1:], "cfield": "found", "out": tmp_path / "out.shp"},
    )
    made = table(tmp_path / "out.shp")
    assert set(made["found"]) <= {1, 2} and len(made["found"]) == len([c for c in table(whole)["count"] if c])


def test_tables_for_shapefiles_and_their_names(objects, tmp_path):
    raster = objects.folder / "features/T31TCJ/tmp/T31TCJ_embedding.tif"
    segmentation = objects.folder / "segments_T31TCJ.gpkg"
    wanted = features.zonal_statistics(raster, segmentation, tmp_path / "o.shp", ["mean", "std"])
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".dbf", ".prj", ".shp", ".shx"]
    found = table(tmp_path / "o.shp")
    assert list(found)[2:] == wanted
    same = table(objects.folder / "features/T31TCJ/T31TCJ_objects.gpkg")
    for name in wanted:
        assert [v for v in found[name] if v] == pytest.approx([v for v in same[name] if v])
    with pytest.raises(Iota2Error, match='"embedding_mean_0"; expected at most 10 characters in a .shp'):
        features.zonal_statistics(raster, segmentation, tmp_path / "p.shp", ["mean"], prefix="embedding_")
    assert features.zonal_statistics(raster, segmentation, tmp_path / "p.gpkg", ["max", "min"], "e_")[:2] == ["e_min_0", "e_max_0"]
    with pytest.raises(Iota2Error, match='objects.segmentation: found the column "mean_0"'):
        features.zonal_statistics(raster, objects.folder / "features/T31TCJ/T31TCJ_objects.gpkg", tmp_path / "q.gpkg", ["mean"])
    assert not (tmp_path / "q.gpkg").exists()
    many = write(tmp_path / "many.tif", np.zeros((400, 4, 4)))
    with pytest.raises(Iota2Error, match="objects.statistics: found 402 columns; expected at most 255 in a .shp"):
        features.zonal_statistics(many, segmentation, tmp_path / "q.shp", ["mean"])
    assert len(features.zonal_statistics(many, segmentation, tmp_path / "q.gpkg", ["mean", "max"])) == 800
    many = write(tmp_path / "many.tif", np.zeros((500, 4, 4)))
    with pytest.raises(Iota2Error, match="embedding: found 500 dimensions; expected at most 499"):
        features.zonal_statistics(many, segmentation, tmp_path / "r.gpkg", ["mean"])


# ---------------------------------------------------------------------------------------------
# External features


def test_external_features_of_2020(objects, tmp_path, monkeypatch):
    """A file of the user's, loaded by its path; chunk and tile are those of iota2's own functions."""
    import importlib.util
    import types

    pattern = str(objects.folder / "features/{tile}/tmp/{tile}_embedding.tif")
    (tmp_path / "mine.py").write_text(
        f"from otbtorch.iota2.external_features import embeddings\nget_embeddings = embeddings({pattern!r})\n"
    )
    spec = importlib.util.spec_from_file_location("mine", tmp_path / "mine.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class data_container:  # what 2020 hands to the function: a class without tile or window
        pass

    def process_function(function, stream_bbox):
        return function()

    def compute_custom_features(tile, stream_bbox):
        function = types.MethodType(module.get_embeddings, data_container)
        return process_function(function, stream_bbox)

    monkeypatch.setitem(sys.modules, "iota2.learning.utils", None)  # 2020 has no such module
    array, labels = compute_custom_features("T31TCJ", (1, 10, 8, 7))  # startx, sizex, starty, sizey
    whole = read(pattern.format(tile="T31TCJ"))
    wanted = np.where(whole == -9999, 0, whole)[:, 8:15, 1:11].transpose(1, 2, 0)
    assert array.shape == (7, 10, DIMENSIONS) and array.dtype == np.float32
    assert (array == wanted).all() and (wanted == 0).any()
    assert labels == [f"emb_{k}" for k in range(DIMENSIONS)]
    with pytest.raises(Iota2Error, match="no tile and window of the chunk"):
        module.get_embeddings(data_container)


def test_external_features_of_today(objects):
    """Labels are objects; the window is a keyword, an attribute, or iota2's own exogenous array."""
    from iota2.learning.utils import I2Label

    pattern = str(objects.folder / "features/{tile}/tmp/{tile}_embedding.tif")
    get = external_features.embeddings(pattern)
    array, labels = get(object(), tile="T31TDJ", window=(0, 0, 5, 4))
    assert array.shape == (4, 5, DIMENSIONS) and labels[1] == I2Label("otbtorch", "emb1")

    class Container:
        tile_name, window = "T31TDJ", (0, 0, 5, 4)

        def exogenous(self):
            return array, ["a"]

    assert (get(Container())[0] == array).all()
    again, labels = external_features.embeddings(exogenous="exogenous")(Container())
    assert (again == array).all() and len(labels) == DIMENSIONS
    with pytest.raises(Iota2Error, match="expected one inside 22 x 30 pixels"):
        get(object(), tile="T31TDJ", window=(20, 0, 5, 4))
    with pytest.raises(Iota2Error, match="embeddings: found no raster"):
        external_features.get_embeddings(object(), tile="T31TDJ", window=(0, 0, 5, 4))
