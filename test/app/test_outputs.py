"""Files, names, formats, parameters: what a user or QGIS meets around the map itself."""

import json
import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import (
    BIN,
    LAUNCHER,
    TRANSFORM,
    Scene,
    command,
    environment,
    facts,
    make_scene,
    parts,
    read,
    run,
    run_all,
    stripes,
    texture,
    tiles,
    write,
)
from osgeo import gdal

PARAMETERS = [
    "in1",
    "in2",
    "model",
    "contract",
    "out",
    "proba",
    "sem1",
    "sem2",
    "conf",
    "mask",
    "thr",
    "device",
    "precision",
    "batch",
    "blend",
    "legend",
    "ram",
]


@pytest.fixture(scope="module")
def expected(models, scene, tmp_path_factory):
    """Pixels of ``unet.pt`` over the scene, written plainly."""
    paths, _ = run_all(models / "unet.pt", tmp_path_factory.mktemp("expected"), scene)
    return {name: read(path) for name, path in paths.items()}


def folder_of(tmp_path, name="out"):
    folder = tmp_path / name
    folder.mkdir()
    return folder


# ---------------------------------------------------------------------------------------------
# Files


def test_grid_and_types_are_those_of_the_first_date(models, scene, tmp_path):
    paths, _ = run_all(models / "unet_sem.pt", tmp_path, scene)
    image = facts(scene.in1)
    for name, path in paths.items():
        found = facts(path)
        assert (found.width, found.height, found.bands) == (image.width, image.height, 1)
        assert found.transform == TRANSFORM and found.epsg == "32631", name
        assert found.kind == ("Float32" if name in ("proba", "conf") else "Byte"), name
    assert parts(tmp_path) == []


def test_a_window_is_georeferenced_where_it_lies(models, scene, tmp_path):
    out = tmp_path / "out.tif"
    run(model=models / "pixel.pt", out=f"{out}?&box=30:41:100:77", **scene.parameters()).ok()
    found = facts(out)
    assert (found.width, found.height) == (100, 77)
    assert found.transform == (500300.0, 10.0, 0.0, 4799590.0, 0.0, -10.0)
    assert found.nodata == 255


@pytest.mark.parametrize(
    "options",
    [
        "?&gdal:co:TILED=YES&gdal:co:COMPRESS=DEFLATE",
        stripes(20) + "&gdal:co:COMPRESS=LZW&gdal:co:PREDICTOR=2",
        tiles(128) + "&gdal:co:TILED=YES&gdal:co:BLOCKXSIZE=64&gdal:co:BLOCKYSIZE=64",
    ],
)
def test_creation_options_do_not_change_the_pixels(options, models, scene, expected, tmp_path):
    paths, _ = run_all(models / "unet.pt", tmp_path, scene, options, outputs=["out"])
    assert (read(paths["out"]) == expected["out"]).all()
    structure = gdal.Info(str(paths["out"]), format="json")
    if "DEFLATE" in options:
        assert structure["metadata"]["IMAGE_STRUCTURE"]["COMPRESSION"] == "DEFLATE"
    if "TILED" in options:
        assert structure["bands"][0]["block"][0] in (64, 256)


@pytest.mark.parametrize(
    "kind, name", [("int16", "Int16"), ("uint16", "UInt16"), ("float", "Float32")]
)
def test_pixel_type_can_be_chosen(kind, name, models, scene, expected, tmp_path):
    out = tmp_path / "out.tif"
    run(model=models / "unet.pt", out=[out, kind], **scene.parameters()).ok()
    assert (facts(out).kind, facts(out).nodata) == (name, 255)
    assert (read(out) == expected["out"]).all()


def test_png_is_written_though_it_cannot_be_streamed(models, scene, expected, tmp_path):
    folder = folder_of(tmp_path)
    run(model=models / "unet.pt", out=folder / "out.png", ram=1, **scene.parameters()).ok()
    assert facts(folder / "out.png").driver == "PNG"
    assert (read(folder / "out.png") == expected["out"]).all()
    assert parts(folder) == []


def test_erdas_image_is_written_twice_under_its_name(models, scene, expected, tmp_path):
    """``.img`` is ERDAS Imagine to OTB; the second run replaces the first."""
    folder = folder_of(tmp_path)
    outputs = dict(out=folder / "out.img", proba=folder / "proba.img")
    for _ in range(2):
        run(model=models / "unet.pt", **outputs, **scene.parameters()).ok()
        for name, path in outputs.items():
            found = facts(path)
            assert (found.driver, found.transform) == ("HFA", TRANSFORM)
            assert found.nodata == (255 if name == "out" else -1), name
            assert (read(path) == expected[name]).all(), name
        found = {n for n in os.listdir(folder) if not n.endswith(".aux.xml")}
        assert found == {"out.img", "proba.img", "out.qml", "proba.qml"}


def test_envi_is_renamed_with_its_header(models, scene, expected, tmp_path):
    """``map.hdr`` is ENVI to OTB: pixels in ``map``, header in ``map.hdr``."""
    folder = folder_of(tmp_path)
    for _ in range(2):
        done = run(
            model=models / "unet.pt",
            out=folder / "out.hdr",
            proba=folder / "proba.hdr",
            **scene.parameters(),
        )
        done.ok()
        for name in ("out", "proba"):
            found = facts(folder / name)
            assert (found.driver, found.transform) == ("ENVI", TRANSFORM)
            assert (read(folder / name) == expected[name]).all(), name
        found = {n for n in os.listdir(folder) if not n.endswith(".aux.xml")}
        assert found == {"out", "out.hdr", "proba", "proba.hdr"}


def test_one_output_may_be_png_and_another_geotiff(models, scene, expected, tmp_path):
    folder = folder_of(tmp_path)
    outputs = dict(out=folder / "out.png", proba=folder / "proba.tif")
    run(model=models / "unet.pt", **outputs, **scene.parameters()).ok()
    for name, path in outputs.items():
        assert (read(path) == expected[name]).all(), name


def test_virtual_file_is_written_without_a_temporary_name(models, small):
    """Nothing to rename there; the run succeeds."""
    done = run(model=models / "pixel.pt", out="/vsimem/map.tif", **small.parameters()).ok()
    assert "/vsimem/map.tif" in done.log and ".part-" not in done.log


@pytest.mark.parametrize("name", ["with blanks é", "a+b & c", "100% [done]"])
def test_paths_with_unusual_characters_work(name, models, scene, expected, tmp_path):
    folder = folder_of(tmp_path, name)
    for path in (scene.in1, scene.in2, scene.mask, models / "unet.pt"):
        shutil.copy(path, folder)
    run(
        in1=folder / "in1.tif",
        in2=folder / "in2.tif",
        mask=folder / "mask.tif",
        model=folder / "unet.pt",
        out=folder / "the map.tif",
        proba=folder / "the proba.tif",
    ).ok()
    assert (read(folder / "the map.tif") == expected["out"]).all()
    assert (read(folder / "the proba.tif") == expected["proba"]).all()
    assert parts(folder) == []


def test_relative_paths_are_relative_to_the_working_folder(models, scene, expected, tmp_path):
    shutil.copy(models / "unet.pt", tmp_path)
    for path in (scene.in1, scene.in2, scene.mask):
        shutil.copy(path, tmp_path)
    images = dict(in1="in1.tif", in2="in2.tif", mask="mask.tif")
    run(cwd=tmp_path, model="unet.pt", out="o.tif", **images).ok()
    assert (read(tmp_path / "o.tif") == expected["out"]).all()


@pytest.mark.parametrize("names", [["out"], ["out", "proba"]])
def test_an_older_output_is_replaced_with_its_side_cars(names, models, scene, expected, tmp_path):
    """Statistics and overviews of the older file would be wrong for the new one."""
    folder = folder_of(tmp_path)
    for name in names:
        path = write(folder / f"{name}.tif", np.full((50, 60), 77, np.float32))
        old = gdal.Open(str(path))
        old.GetRasterBand(1).ComputeStatistics(False)
        old.BuildOverviews("NEAREST", [2])  # opened for reading: an .ovr beside it
        old = None
        assert (folder / f"{name}.tif.aux.xml").exists() and (folder / f"{name}.tif.ovr").exists()
    paths, _ = run_all(models / "unet.pt", folder, scene, outputs=names)
    for name, path in paths.items():
        assert (read(path) == expected[name]).all(), name
        image = gdal.Open(str(path))
        assert image.GetRasterBand(1).GetOverviewCount() == 0
        assert "STATISTICS_MEAN" not in image.GetRasterBand(1).GetMetadata()
        image = None
    assert parts(folder) == []


def test_an_output_over_an_input_is_refused(models, scene, tmp_path):
    image = shutil.copy(scene.in1, tmp_path / "image.tif")
    before = (tmp_path / "image.tif").read_bytes()
    parameters = dict(scene.parameters(), in1=image)
    done = run(model=models / "unet.pt", out=f"{tmp_path}/./image.tif", **parameters)
    assert done.returncode == 1
    assert "an input of this run" in done.log
    assert (tmp_path / "image.tif").read_bytes() == before


# ---------------------------------------------------------------------------------------------
# Inputs


def test_bands_are_chosen_with_an_extended_file_name(models, scene, expected, tmp_path):
    """In the order that is written there."""
    order = [4, 2, 1, 3]  # places of the model's bands in the file, which begins with another
    images = {}
    for key, x in (("in1", scene.x1), ("in2", scene.x2)):
        stack = np.full((5,) + x.shape[1:], 5000, np.float32)
        for band, place in enumerate(order):
            stack[place] = x[band]
        path = write(tmp_path / f"{key}.tif", stack, nodata=0)
        images[key] = f"{path}?&bands=" + ",".join(str(p + 1) for p in order)
    out = tmp_path / "out.tif"
    run(model=models / "unet.pt", mask=scene.mask, out=out, **images).ok()
    assert (read(out) == expected["out"]).all()


def test_integer_images_give_the_map_of_their_values(models, scene, tmp_path):
    """uint16 as Sentinel-2 products are, against the same values in float."""
    maps = {}
    for kind in (gdal.GDT_UInt16, gdal.GDT_Float32):
        images = {}
        for key, x in (("in1", scene.x1), ("in2", scene.x2)):
            values = np.nan_to_num(np.rint(x), nan=7, posinf=8)
            images[key] = write(tmp_path / f"{key}.tif", values, kind=kind)
        run(model=models / "unet.pt", out=tmp_path / "out.tif", **images).ok()
        maps[kind] = read(tmp_path / "out.tif")
    assert (maps[gdal.GDT_UInt16] == maps[gdal.GDT_Float32]).all()


def test_images_without_projection_nor_geotransform_work(models, scene, expected, tmp_path):
    images = {
        key: write(tmp_path / f"{key}.tif", x, transform=None, epsg=None, nodata=0)
        for key, x in (("in1", scene.x1), ("in2", scene.x2), ("mask", scene.m))
    }
    run(model=models / "unet.pt", out=tmp_path / "out.tif", **images).ok()
    assert (read(tmp_path / "out.tif") == expected["out"]).all()
    assert facts(tmp_path / "out.tif").projection == ""


def test_rounding_of_another_tool_does_not_make_another_grid(models, scene, expected, tmp_path):
    """A few thousandths of a pixel, another text of the same projection."""
    shift = (TRANSFORM[0] + 0.02, 10.0000001, 0.0, TRANSFORM[3] - 0.01, 0.0, -10.0000001)
    in2 = write(tmp_path / "in2.tif", scene.x2, transform=shift, nodata=0)
    parameters = dict(scene.parameters(), in2=in2)
    run(model=models / "unet.pt", out=tmp_path / "out.tif", **parameters).ok()
    assert (read(tmp_path / "out.tif") == expected["out"]).all()
    assert facts(tmp_path / "out.tif").transform == TRANSFORM


def test_mask_values_other_than_0_are_valid(models, small, tmp_path):
    mask = np.zeros((117, 151), np.float32)
    mask[10:50, 10:60], mask[60:100, 20:90], mask[20, 20] = 255, 0.25, np.nan
    path = write(tmp_path / "mask.tif", mask)
    run(model=models / "pixel.pt", mask=path, out=tmp_path / "out.tif", **small.parameters()).ok()
    valid = small.valid() & (mask != 0) & ~np.isnan(mask)
    assert ((read(tmp_path / "out.tif") == 255) == ~valid).all()


# ---------------------------------------------------------------------------------------------
# Where the contract comes from


def with_threshold(contract, threshold, name):
    contract["properties"]["otb:calibration"]["threshold"] = threshold
    contract["id"] = name
    return json.dumps(contract)


@pytest.fixture
def contracts(contract_of, models, tmp_path):
    """A copy of a model with four contracts, told apart by their thresholds."""
    shutil.copy(models / "pixel.pt", tmp_path)
    files = {"pixel.pt.mlm.json": 0.61, "pixel.mlm.json": 0.62, "given.json": 0.63}
    for path, threshold in files.items():
        name = path.replace(".", "-")
        (tmp_path / path).write_text(with_threshold(contract_of("pixel.pt"), threshold, name))
    return tmp_path


def used(folder, small, **more):
    """The threshold of the contract that a run used, seen in its map."""
    outputs = dict(out=folder / "out.tif", proba=folder / "proba.tif")
    done = run(model=folder / "pixel.pt", **outputs, **small.parameters(), **more).ok()
    out, proba = read(outputs["out"]), read(outputs["proba"])
    for threshold in (0.5, 0.61, 0.62, 0.63):
        if ((out == 1) == (proba >= np.float32(threshold))).all():
            assert f"at or above {threshold:g} (contract)" in done.log
            return threshold
    raise AssertionError("the map has another threshold")


def test_given_contract_beats_the_side_car(contracts, small):
    assert used(contracts, small, contract=contracts / "given.json") == 0.63


def test_side_car_beats_the_embedded_contract(contracts, small):
    assert used(contracts, small) == 0.61


def test_side_car_without_pt_comes_second(contracts, small):
    (contracts / "pixel.pt.mlm.json").unlink()
    assert used(contracts, small) == 0.62


def test_embedded_contract_is_used_where_there_is_no_other(contracts, small):
    (contracts / "pixel.pt.mlm.json").unlink()
    (contracts / "pixel.mlm.json").unlink()
    assert used(contracts, small) == 0.5


def test_side_car_serves_a_model_without_a_contract(models, contract_of, small, tmp_path):
    shutil.copy(models / "nocontract.pt", tmp_path)
    (tmp_path / "nocontract.pt.mlm.json").write_text(json.dumps(contract_of("pixel.pt")))
    out = tmp_path / "out.tif"
    run(model=tmp_path / "nocontract.pt", out=out, **small.parameters()).ok()
    run(model=models / "pixel.pt", out=tmp_path / "o2.tif", **small.parameters()).ok()
    assert (read(out) == read(tmp_path / "o2.tif")).all()


def test_log_says_where_the_contract_came_from(contracts, small, models, tmp_path):
    path = contracts / "given.json"
    out = tmp_path / "out.tif"
    model = contracts / "pixel.pt"
    done = run(model=model, contract=path, out=out, **small.parameters()).ok()
    assert f"Model given-json (test), contract from {path}" in done.log
    done = run(model=models / "pixel.pt", out=out, **small.parameters()).ok()
    assert "Model pixel (test), contract from the model itself" in done.log


# ---------------------------------------------------------------------------------------------
# Progress, help, environment


def test_piped_progress_is_what_qgis_reads(models, tmp_path):
    """One line a percentage, growing, the last one 100 %."""
    big = make_scene(tmp_path, 900, 900)
    out = tmp_path / "out.tif"
    done = run(model=models / "attention.pt", out=out, threads=1, **big.parameters()).ok()
    lines = [line for line in done.log.splitlines() if line.startswith("Inference")]
    pattern = re.compile(r"^Inference: *(\d+)% \[[* ]{50}\] \d+:\d\d( left)?$")
    found = [pattern.match(line) for line in lines]
    assert all(found), lines
    percents = [int(f.group(1)) for f in found]
    assert len(percents) >= 3 and percents[-1] == 100, percents
    assert percents == sorted(set(percents)), percents
    assert "\r" not in "".join(lines)


def test_help_lists_every_parameter_and_explains_no_data():
    done = run("-help", timeout=30)
    assert done.returncode < 128
    for name in PARAMETERS:
        assert re.search(rf"^(MISSING|       ) -{name} ", done.log, re.M), name
    assert "no-data" in done.log.lower()
    assert "(FATAL)" not in done.log


def test_help_of_a_parameter_describes_it():
    done = run("-help", *PARAMETERS, timeout=30)
    for words in ("0 = no change, 1 = change", "no-data -1", "cpu, cuda or cuda:N"):
        assert words in done.log, words


def test_missing_parameter_is_named(models, small):
    done = run(model=models / "pixel.pt", in1=small.in1, in2=small.in2)
    assert 0 < done.returncode < 128
    assert "-out" in done.log and "issing" in done.log


def bare_environment(**more):
    """What ``env -i`` leaves, as QGIS may start the application."""
    return dict(PATH="/usr/bin:/bin", **more)


def test_empty_environment_works(models, scene, expected, tmp_path):
    """No HOME, no locale, no number of threads."""
    out = tmp_path / "out.tif"
    run(env=bare_environment(), model=models / "unet.pt", out=out, **scene.parameters()).ok()
    assert (read(out) == expected["out"]).all()


def test_otb_s_own_launcher_finds_the_application(models, scene, expected, tmp_path):
    """As QGIS: otbApplicationLauncherCommandLine with OTB_APPLICATION_PATH, nothing else."""
    path = BIN.parent / "lib" / "otb" / "applications"
    env = bare_environment(OTB_APPLICATION_PATH=str(path))
    out = tmp_path / "out.tif"
    words = command(model=models / "unet.pt", out=out, **scene.parameters())
    done = subprocess.run(
        ["otbApplicationLauncherCommandLine", "SiameseCD", str(path)] + words,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout.decode()
    assert (read(out) == expected["out"]).all()


@pytest.mark.parametrize("name", ["de_DE.UTF-8", "fr_FR.UTF-8"])
def test_decimal_comma_of_a_locale_does_not_matter(name, models, small, tmp_path):
    """Thresholds and JSON numbers are read with a point. Locales not installed count as C."""
    out = tmp_path / "out.tif"
    env = dict(environment(), LC_ALL=name, LANG=name)
    parameters = dict(small.parameters(), model=models / "pixel.pt", out=out)
    done = run(env=env, proba=tmp_path / "p.tif", thr=0.625, **parameters).ok()
    assert "at or above 0.625 (-thr)" in done.log
    assert ((read(out) == 1) == (read(tmp_path / "p.tif") >= 0.625)).all()


def test_launcher_is_found_on_the_path_from_any_folder(models, small, tmp_path):
    env = dict(environment(), PATH=f"{BIN}:" + os.environ["PATH"])
    out = tmp_path / "out.tif"
    words = command(model=models / "pixel.pt", out=out, **small.parameters())
    done = subprocess.run(
        [LAUNCHER.name] + words, env=env, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout.decode()
    assert out.exists()


def test_log_of_a_good_run_holds_nothing_to_worry_about(models, small, tmp_path):
    """Nothing frightens a user whose run is all right."""
    outputs = {name: tmp_path / f"{name}.tif" for name in ("out", "proba", "conf")}
    done = run(model=models / "unet.pt", **outputs, **small.parameters()).ok()
    assert done.warnings() == []
    assert "ERROR" not in done.log, done.log


def test_batch_does_not_change_the_pixels(models, scene, expected, tmp_path):
    out = tmp_path / "out.tif"
    done = run(model=models / "unet.pt", batch=7, out=out, **scene.parameters()).ok()
    assert done.batch() == 7
    assert (read(out) == expected["out"]).all()


def test_threshold_at_a_probability_counts_as_change(models, tmp_path):
    """At or above: a pixel whose probability is the threshold itself is changed."""
    rng = np.random.default_rng(2)
    x1, x2 = texture(rng, 4, 40, 40), texture(rng, 4, 40, 40)
    scene = Scene(write(tmp_path / "1.tif", x1), write(tmp_path / "2.tif", x2), x1, x2)
    first, _ = run_all(models / "pixel.pt", tmp_path, scene, outputs=["out", "proba"])
    proba = read(first["proba"])
    threshold = np.sort(proba[(proba > 0.2) & (proba < 0.8)])[10]
    names = ["out", "proba"]
    thr = f"{threshold:.9g}"
    paths, _ = run_all(models / "pixel.pt", tmp_path, scene, outputs=names, prefix="t", thr=thr)
    assert ((read(paths["out"]) == 1) == (proba >= threshold)).all()
    assert (proba == threshold).any()
