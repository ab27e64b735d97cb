"""iota2 without iota2, dask or the application: parameters, names, windows, guards."""

import builtins
import json
import pathlib
import pickle
import subprocess
import sys

import pytest

from otbtorch.iota2 import Iota2Error, __main__, builder, classify, features, parameters, steps
from otbtorch.iota2.names import Maps, label_type, window

PYTHON = pathlib.Path(__file__).resolve().parents[1]


def test_defaults_are_iota2s_own_files():
    p = parameters.check({})
    assert p["model"] == "model/model_{model}_seed_{seed}.pt" and p["chunks"] == 1 and p["keep"]
    (sensor,) = p["sensors"]
    assert sensor["stack"] == "features/{tile}/tmp/Sentinel2_{tile}_TSG.tif"
    assert sensor["dates"] == "features/{tile}/tmp/Sentinel2_{tile}_interpolation_dates.txt"
    assert sensor["masks"] is None and sensor["bands"] == parameters.SENTINEL2


@pytest.mark.parametrize(
    "series, stack, dates, masks, tail",
    [
        ("raw", "TS.tif", "input_dates.txt", "MASKS.tif", []),
        ("features", "Features.tif", "interpolation_dates.txt", None, ["|", "NDVI", "NDWI", "Brightness"]),
    ],
)
def test_stacks_that_iota2_writes(series, stack, dates, masks, tail):
    sensor = parameters.check({"sensors": [{"name": "Sentinel2", "series": series}]})["sensors"][0]
    head = "features/{tile}/tmp/Sentinel2_{tile}_"
    assert (sensor["stack"], sensor["dates"]) == (head + stack, head + dates)
    assert sensor["masks"] == (masks and head + masks)
    assert sensor["bands"] == parameters.SENTINEL2 + tail


def test_another_stack_says_its_bands_and_masks_itself():
    given = {"name": "Sentinel2", "series": "raw", "stack": "mine/{tile}.tif"}
    sensor = parameters.check({"sensors": [given]})["sensors"][0]
    assert sensor["stack"] == "mine/{tile}.tif" and sensor["masks"] is None and sensor["bands"] is None
    other = parameters.check({"sensors": [{"name": "Sentinel1"}, {"name": "Landsat8"}]})["sensors"]
    assert [s["bands"] for s in other] == [None, None]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"chunk": 2}, 'parameters: found "chunk"; expected some of .*Is "chunks" meant'),
        ({"chunks": 0}, "chunks: found 0; expected an integer of 1 or more"),
        ({"chunks": True}, "chunks: found true; expected an integer"),
        ({"model": "model_{region}.pt"}, "model: found .*expected no other fields than {model}, {seed}"),
        ({"sensors": []}, r"sensors: found \[\]; expected a list of 1 to 4"),
        ({"sensors": [{"series": "raw"}]}, r"sensors\[0\].name: found null; expected iota2's name"),
        ({"sensors": [{"name": "S", "series": "all"}]}, r'sensors\[0\].series: found "all"; expected one of gapfilled, raw, features'),
        ({"labels": [0, 1]}, "labels: found 0; expected an integer of 1 or more"),
        ({"labels": [70000]}, "labels: found 70000; expected labels of 16 bits"),
        ({"execution": "slurm"}, "execution: found .*expected local or cluster"),
        ({"keep": 1}, "keep: found 1; expected true or false"),
        ({"options": {"out": "x"}}, 'options: found "out"; expected options that the step does not set itself'),
        ({"options": {"static": 3}}, "options.static: found 3; expected a list of words"),
        ({"options": {"static": ["{region}.tif"]}}, "options.static: found .*expected no other fields than {tile}"),
        ({"options": {"classes": ["1:2+3"]}}, "labels: found nothing; expected the labels of the map"),
        ({"embedding": {}}, "embedding.model: found null; expected the name of a file"),
        ({"objects": {"segmentation": "s.gpkg"}}, "embedding: found nothing; expected the model"),
        (
            {"embedding": {"model": "m.pt"}, "objects": {"segmentation": "s.gpkg", "statistics": ["median"]}},
            'objects.statistics: found "median"; expected some of mean, std, min, max, count',
        ),
        ({"embedding": {"model": "m.pt", "type": "int8"}, "objects": {"segmentation": "s.gpkg"}}, 'embedding.type: found "int8"'),
    ],
)
def test_a_parameter_that_is_wrong_is_named(given, said):
    with pytest.raises(Iota2Error, match=said):
        parameters.check(given)


def test_the_file_is_beside_the_configuration_or_named_by_a_variable(tmp_path, monkeypatch):
    monkeypatch.delenv(parameters.VARIABLE, raising=False)
    cfg = tmp_path / "i2.cfg"
    assert parameters.find(cfg)["chunks"] == 1
    (tmp_path / parameters.FILE).write_text(json.dumps({"chunks": 4}))
    assert parameters.find(cfg)["chunks"] == 4
    (tmp_path / "other.json").write_text(json.dumps({"chunks": 5}))
    monkeypatch.setenv(parameters.VARIABLE, str(tmp_path / "other.json"))
    assert parameters.find(cfg)["chunks"] == 5
    with pytest.raises(Iota2Error, match="parameters: found .*nowhere.json.*cannot be read"):
        parameters.read(tmp_path / "nowhere.json")
    (tmp_path / "other.json").write_text("{")
    with pytest.raises(Iota2Error, match="which is no JSON"):
        parameters.find(cfg)


def test_names_of_files():
    maps = Maps("/run", "T31TCJ", "2f1", 3)
    assert maps.labels == pathlib.Path("/run/classif/Classif_T31TCJ_model_2f1_seed_3.tif")
    assert maps.confidence.name == "T31TCJ_model_2f1_confidence_seed_3.tif"
    assert maps.probabilities.name == "PROBAMAP_T31TCJ_model_2f1_seed_3.tif"
    assert maps.mask == pathlib.Path("/run/classif/MASK/MASK_region_2_T31TCJ.tif")
    part = Maps("/run", "T31TCJ", "2f1", 3, 0)  # 0 is a chunk, too
    assert part.labels.name == "Classif_T31TCJ_model_2f1_seed_3_SUBREGION_0.tif"
    assert part.confidence.name == "T31TCJ_model_2f1_confidence_seed_3_SUBREGION_0.tif"
    assert part.whole() == maps
    assert [f.name[:8] for f in maps.files(True)] == ["PROBAMAP", "T31TCJ_m", "Classif_"]


@pytest.mark.parametrize("rows, chunks", [(1, 1), (7, 7), (10980, 50), (10, 3), (997, 13)])
def test_chunks_are_all_rows_once(rows, chunks):
    parts = [window(rows, chunks, k) for k in range(chunks)]
    assert [first for first, _ in parts] == [sum(n for _, n in parts[:k]) for k in range(chunks)]
    assert sum(n for _, n in parts) == rows
    sizes = {n for _, n in parts}
    assert max(sizes) - min(sizes) <= 1 and min(sizes) >= 1


def test_chunks_that_cannot_be():
    with pytest.raises(Iota2Error, match="chunks: found 5; expected 1 to 4"):
        window(4, 5, 0)
    with pytest.raises(Iota2Error, match="chunk: found 2; expected 0 to 1"):
        window(4, 2, 2)


def test_type_of_labels():
    assert [label_type(v) for v in ([1, 255], [1, 256], [300])] == ["uint8", "uint16", "uint16"]


def test_columns_of_objects():
    assert features.columns(["std", "mean"], 2) == ["mean_0", "stdev_0", "mean_1", "stdev_1"]
    assert features.columns(["count", "max"], 1, "e_") == ["e_count", "e_max_0"]


@pytest.mark.parametrize(
    "text, found", [("5gb", 5120), ("512 MB", 512), ("1.5Go", None), (8, 8192), ("0.5g", 512), (None, None), ("1Gib", 1024)]
)
def test_memory_of_iota2s_resources(text, found):
    assert steps.megabytes(text) == found


def chain(**more):
    given = dict(output_path="/run", tiles=("A", "B"), regions={"1": ("A",), "2f1": ("A", "B")}, runs=2,
                 parameters=parameters.check({"labels": [1, 2], "chunks": 2}))  # fmt: skip
    return steps.Chain(**{**given, **more})


def test_tasks_are_one_per_tile_model_seed_and_chunk():
    tasks = steps.classification_tasks(chain())
    assert len(tasks) == 3 * 2 * 2 == len({t.name for t in tasks}) == len({t.sub_group for t in tasks})
    assert tasks[-1].name == "torch_classification_B_model_2f1_seed_1_1" and not set(" -") & set(tasks[-1].name)
    assert tasks[-1].sub_group == "B_2f1_1_usually_1"
    assert tasks[-1].dependencies == {"region_tasks": ["model_2f1_seed_1_usually"]}
    assert {t.group for t in tasks} == {"tile_tasks_model_mode"}
    whole = steps.classification_tasks(chain(parameters=parameters.check({"labels": [1]})))
    assert [t.sub_group for t in whole][:2] == ["A_1_0_usually", "A_1_1_usually"] and whole[0].arguments["chunk"] is None


def test_series_of_a_tile_as_words_of_the_command_line(tmp_path):
    given = [
        {"name": "Sentinel2", "series": "raw"},
        {"name": "Sentinel1", "stack": "s1/{tile}.tif", "dates": "s1.txt", "masks": "s1/m.tif", "masktype": "valid"},
    ]
    p = parameters.check({"sensors": given})
    head = tmp_path / "features" / "T1" / "tmp" / "Sentinel2_T1_"
    for path in (f"{head}TS.tif", f"{head}input_dates.txt", f"{head}MASKS.tif", tmp_path / "s1" / "T1.tif", tmp_path / "s1.txt"):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).touch()
    with pytest.raises(Iota2Error, match=r"sensors\[1\].masks: found no file at .*m.tif.*; expected the masks of Sentinel1, tile T1"):
        classify.series(tmp_path, "T1", p)
    (tmp_path / "s1" / "m.tif").touch()
    assert classify.series(tmp_path, "T1", p) == {
        "in": f"{head}TS.tif",
        "dates": f"{head}input_dates.txt",
        "maskl": f"{head}MASKS.tif",
        "bands": parameters.SENTINEL2,
        "il2": str(tmp_path / "s1" / "T1.tif"),
        "dates2": str(tmp_path / "s1.txt"),
        "maskl2": str(tmp_path / "s1" / "m.tif"),
        "masktype2": "valid",
    }


def test_a_list_of_models_knows_the_classes_of_its_members(tmp_path):
    (tmp_path / "model_1_seed_0.txt").write_text("# an ensemble\nnowhere.pt\n")
    with pytest.raises(Iota2Error, match='model: found no file at ".*nowhere.pt"'):
        classify.labels_of_model(tmp_path / "model_1_seed_0.txt")
    shipped = PYTHON.parent / "data" / "models" / "sits-s2-crops.pt"
    (tmp_path / "model_1_seed_0.txt").write_text(f"{shipped}  # the only one\n")
    assert classify.labels_of_model(tmp_path / "model_1_seed_0.txt") == classify.labels_of_model(shipped) != []
    (tmp_path / "broken.pt").write_bytes(b"PK")
    with pytest.raises(Iota2Error, match="expected a model with a contract"):
        classify.labels_of_model(tmp_path / "broken.pt")


def test_tasks_travel():
    """Functions are found by name, arguments are plain values."""
    for task in steps.classification_tasks(chain()) + steps.merge_tasks(chain()):
        assert pickle.loads(pickle.dumps((task.function, task.arguments))) == (task.function, task.arguments)
        json.dumps(task.arguments)


def test_merged_maps_have_the_names_that_others_wait_for():
    tasks = steps.merge_tasks(chain())
    assert tasks[0].sub_group == "A_1_0_usually"
    assert tasks[0].dependencies == {"tile_tasks_model_mode": ["A_1_0_usually_0", "A_1_0_usually_1"]}
    with pytest.raises(Iota2Error, match="chunks: found 1; expected 2 or more"):
        steps.merge_tasks(chain(parameters=parameters.check({})))


def test_classes_of_the_run_need_its_models_or_a_list(tmp_path):
    with pytest.raises(Iota2Error, match='model: found no file at .*model_1_seed_0.pt.*under "labels"'):
        steps.classification_tasks(chain(output_path=str(tmp_path), parameters=parameters.check({})))


def test_errors_travel():
    error = pickle.loads(pickle.dumps(Iota2Error("found")))
    assert isinstance(error, Iota2Error) and str(error) == "found"


@pytest.mark.parametrize("call, said", [(builder.builder_2020, "interface of 2020"), (builder.builder_current, "current interface")])
def test_without_iota2_the_error_says_what_to_do(call, said, monkeypatch):
    real = builtins.__import__

    def none(name, *more, **named):
        if name.split(".")[0] == "iota2":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", none)
    for name in [n for n in sys.modules if n.split(".")[0] == "iota2" or n.startswith("otbtorch.iota2.steps_")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=f"the {said} of iota2 is not importable .*Run this inside iota2's environment"):
        call()


def test_workers_import_neither_torch_nor_iota2_nor_dask():
    code = (
        "import sys, otbtorch.iota2.classify, otbtorch.iota2.features, otbtorch.iota2.external_features, otbtorch.iota2.steps\n"
        "print([m for m in ('torch', 'iota2', 'dask', 'jsonschema') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(PYTHON)}, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_the_command_finds_models_and_masks_by_name(tmp_path):
    p = parameters.check({})
    for name in ("model_1_seed_0.pt", "model_2f1_seed_0.pt", "model_2f2_seed_0.pt", "model_1_seed_0.mlm.json"):
        path = tmp_path / "model" / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    with pytest.raises(Iota2Error, match="mask: found none of region 1"):
        __main__.discover(tmp_path, p)
    masks = tmp_path / "classif" / "MASK"
    masks.mkdir(parents=True)
    for name in ("MASK_region_1_T31TCJ.tif", "MASK_region_2_T31TCJ.tif", "MASK_region_2_a_tile.tif"):
        (masks / name).touch()
    regions, runs = __main__.discover(tmp_path, p)
    assert regions == {"1": ("T31TCJ",), "2f1": ("T31TCJ", "a_tile"), "2f2": ("T31TCJ", "a_tile")} and runs == 1
    absolute = parameters.check({"model": str(tmp_path / "model" / "model_{model}_seed_{seed}.pt")})
    assert __main__.discover(tmp_path, absolute)[0] == regions
    (tmp_path / "model" / "model_1_seed_1.pt").touch()
    with pytest.raises(Iota2Error, match="model_2f1_seed_1.pt"):
        __main__.discover(tmp_path, p)


def test_a_pattern_may_leave_model_and_seed_out(tmp_path):
    masks = tmp_path / "classif" / "MASK"
    masks.mkdir(parents=True)
    (tmp_path / "model").mkdir()
    for name in ("national.pt", "seed_0.pt", "seed_1.pt", "model_1.pt", "model_2.pt"):
        (tmp_path / "model" / name).touch()
    with pytest.raises(Iota2Error, match="mask: found none in classif/MASK"):
        __main__.discover(tmp_path, parameters.check({"model": "model/national.pt"}))
    for name in ("MASK_region_1_A.tif", "MASK_region_2_A.tif", "MASK_region_2_B.tif"):
        (masks / name).touch()
    regions = {"1": ("A",), "2": ("A", "B")}
    for pattern, runs in (("national.pt", 1), ("seed_{seed}.pt", 2), ("model_{model}.pt", 1)):
        assert __main__.discover(tmp_path, parameters.check({"model": f"model/{pattern}"})) == (regions, runs)
    for model in regions:
        (tmp_path / "model" / model).mkdir()
        (tmp_path / "model" / model / f"{model}_0.pt").touch()
    assert __main__.discover(tmp_path, parameters.check({"model": "model/{model}/{model}_{seed}.pt"})) == (regions, 1)
    with pytest.raises(Iota2Error, match="model: found nothing at .*nowhere.pt"):
        __main__.discover(tmp_path, parameters.check({"model": "nowhere.pt"}))


def test_files_of_a_model(tmp_path):
    for name in ("a.pt", "b.pt", "a.mlm.json", "b.pt.mlm.json", "other.mlm.json"):
        (tmp_path / name).touch()
    (tmp_path / "list.txt").write_text("a.pt  # first\nb.pt\n")
    assert {p.name for p in classify.model_files(tmp_path / "list.txt")} == {"list.txt", "a.pt", "b.pt", "a.mlm.json", "b.pt.mlm.json"}
    assert [p.name for p in classify.model_files(tmp_path / "a.pt")] == ["a.pt", "a.mlm.json"]
    assert classify.model_files(tmp_path / "nowhere.txt") == [tmp_path / "nowhere.txt"]


def test_static_images_lie_in_the_folder_of_the_run(tmp_path):
    (tmp_path / "dem_T1.tif").touch()
    one = parameters.check({"options": {"static": "dem_{tile}.tif?&skipcarto=true", "batch": 8}})
    assert classify.options_of(tmp_path, "T1", one) == {"static": f"{tmp_path}/dem_T1.tif?&skipcarto=true", "batch": 8}
    names = ["dem_{tile}.tif", f"{tmp_path}/dem_T1.tif", 'NETCDF:"a.nc":b', "/vsizip/a.zip/b.tif"]
    found = classify.options_of(tmp_path, "T1", parameters.check({"options": {"static": names}}))["static"]
    assert found == [f"{tmp_path}/dem_T1.tif", f"{tmp_path}/dem_T1.tif", *names[2:]]
    with pytest.raises(Iota2Error, match='options.static: found no file at ".*dem_T2.tif"; expected an image, for tile T2'):
        classify.options_of(tmp_path, "T2", one)
