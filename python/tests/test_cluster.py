"""otbtorch-run without dask and without OTB: jobs, what identifies them, one job, mosaics."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
from osgeo import gdal, osr

from otbtorch import __main__, testing
from otbtorch.cluster import ClusterError, applications, arrays, assemble, execute, jobs, schedule, stac
from otbtorch.cluster import command as commands

gdal.UseExceptions()

HELP = """
This is the Mapper application, version 8.1.1

Parameters:
MISSING -in1        <string list>    Image of the first date  (mandatory)
MISSING -out        <string> [pixel] Change map  [pixel=uint8/float] (default value is uint8) (mandatory)
        -proba      <string> [pixel] Probability  [pixel=uint8/float] (optional, off by default)
        -thr        <float>          Threshold  (optional, off by default, default value is -1)
        -logsnr     <group>          Range of noise levels
        -logsnr.low <float>          Lowest log-SNR  (optional, off by default)
        -ram        <int32>          Available RAM (MB)  (optional, off by default, default value is 256)

Examples:
otbcli_Mapper -in1 date1.tif -out change.tif
"""

# Copies the file after -in1 to the one after -out; what EXTRA says comes first.
PROGRAM = """#!/bin/sh
if [ "$1" = -help ]; then cat "$(dirname "$0")/help"; exit 0; fi
echo "$@"
eval "${EXTRA:-}"
while [ $# -gt 0 ]; do
  case $1 in -in1) in=$2 ;; -out) out=${2%%\\?*} ;; esac
  shift
done
cp "$in" "$out"
"""


@pytest.fixture
def mapper(tmp_path, monkeypatch):
    """An application that copies; returns the folder of the test."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "help").write_text(HELP)
    program = folder / "otbcli_Mapper"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    monkeypatch.setenv("OTBTORCH_BIN", str(folder))
    monkeypatch.delenv("EXTRA", raising=False)
    monkeypatch.chdir(tmp_path)
    applications.application.cache_clear()
    yield tmp_path
    applications.application.cache_clear()


def write(path, array, x=500000.0, y=4800000.0, epsg=32631, pixel=10.0, nodata=None, kind=None):
    array = np.atleast_3d(np.asarray(array).T).T
    kinds = {"uint8": gdal.GDT_Byte, "float32": gdal.GDT_Float32, "uint16": gdal.GDT_UInt16}
    _, height, width = array.shape
    options = ["PIXELTYPE=SIGNEDBYTE"] if kind == "int8" else []
    made = gdal.GetDriverByName("GTiff").Create(
        str(path), width, height, len(array), kinds[str(array.dtype)], options
    )
    if epsg:
        system = osr.SpatialReference()
        system.ImportFromEPSG(epsg)
        made.SetProjection(system.ExportToWkt())
        made.SetGeoTransform((x, pixel, 0.0, y, 0.0, -pixel))
    for k, plane in enumerate(array):
        made.GetRasterBand(k + 1).WriteArray(plane)
        if nodata is not None:
            made.GetRasterBand(k + 1).SetNoDataValue(nodata)
    return path


def read(path):
    return gdal.Open(str(path)).ReadAsArray()


def noise(width=37, height=29, seed=1, kind="uint8"):
    return np.random.default_rng(seed).integers(0, 200, (height, width)).astype(kind)


def run(*words):
    """What the command prints, and its exit code, in this process and without dask."""
    import contextlib

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = __main__.main(["run"] + [str(w) for w in words])
    return code, out.getvalue() + err.getvalue()


def tiles(folder, count=3):
    lines = ["id,scene"]
    for k in range(count):
        write(folder / f"s{k}.tif", noise(seed=k), x=500000.0 + 370 * k)
        lines.append(f"t{k},s{k}.tif")
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    return ["Mapper", "--tiles", "tiles.csv", "--out", "maps", "--workers", "0"]


COPY = ("--", "-in1", "{scene}", "-out", "{out}")


# -------------------------------------------------------------------------------------------------
# Words


def test_help_says_what_is_written():
    keys, images = applications.parse_help(HELP)
    assert keys == {"in1", "out", "proba", "thr", "logsnr", "logsnr.low", "ram"}
    assert images == {"out", "proba"}


def test_a_placeholder_of_several_values_makes_several_words():
    values = {"a": ["1", "2", "3"], "b": ["x"]}
    assert jobs.substitute("{a}.tif", values, "t") == ["1.tif", "2.tif", "3.tif"]
    assert jobs.substitute("{b}/{a@2}", values, "t") == ["x/2"]
    assert jobs.substitute("{a@-1}", values, "t") == ["3"]
    assert jobs.substitute("plain?&bands=1,2", values, "t") == ["plain?&bands=1,2"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("{c}", r"there is no \{c\}; there is \{a\} \{empty\}"),
        ("{a@2}", r"\{a@2\} of 1 value"),
        ("{a@0}", "the place of a value"),
        ("{empty}", "is empty"),
    ],
)
def test_placeholders_that_mean_nothing_are_refused(word, message):
    with pytest.raises(ClusterError, match=message):
        jobs.substitute(word, {"a": ["1"], "empty": [""]}, "tile t")


def test_numbers_below_zero_are_values(mapper):
    found = jobs.parse_words(["-thr", "-1", "-in1", "a", "b"], applications.application("Mapper"))
    assert found == [("thr", ["-1"]), ("in1", ["a", "b"])]


# -------------------------------------------------------------------------------------------------
# Tables and items


def test_a_table_with_another_delimiter_and_a_byte_order_mark(tmp_path):
    (tmp_path / "t.csv").write_text("﻿id;before; after\r\na;1.tif;2.tif\r\n\r\nb;3.tif;4.tif\r\n")
    assert jobs.read_csv(tmp_path / "t.csv") == [
        {"id": ["a"], "before": ["1.tif"], "after": ["2.tif"]},
        {"id": ["b"], "before": ["3.tif"], "after": ["4.tif"]},
    ]


def test_rows_without_an_id_are_numbered(tmp_path):
    (tmp_path / "t.csv").write_text("scene\na.tif\nb.tif\n")
    assert [t["id"] for t in jobs.read_csv(tmp_path / "t.csv")] == [["tile0001"], ["tile0002"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "must name the columns"), ("id,id\na,b\n", "each once"), ("id,x\n", "no tiles"), ("id,x\na\n", "line 2: expected 2")],
)
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ClusterError, match=message):
        jobs.read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize(("ids", "message"), [("aa", "twice"), (("a", "../b"), "cannot name a folder"), (("a", ".b"), "cannot name")])
def test_ids_name_folders(ids, message):
    with pytest.raises(ClusterError, match=message):
        jobs.check_ids([{"id": [i]} for i in ids], "--tiles t")


def item(name, day, tile, **assets):
    return {
        "type": "Feature",
        "id": name,
        "properties": {"datetime": f"2020-01-{day:02d}T00:00:00Z", "tile": tile},
        "assets": {k: {"href": v} for k, v in assets.items()},
    }


def test_items_of_a_collection_are_tiles(tmp_path):
    items = [item("a", 1, "x", B02="./a/B02.tif", url="https://h/b.tif"), item("b", 2, "x", B02="s3://k/B02.tif")]
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    found = stac.tiles(tmp_path / "items.json")
    assert [t["id"] for t in found] == [["a"], ["b"]]
    assert found[0]["B02"] == [str(tmp_path / "a" / "B02.tif")]
    assert found[0]["url"] == ["/vsicurl/https://h/b.tif"] and found[1]["B02"] == ["/vsis3/k/B02.tif"]
    assert found[0]["tile"] == ["x"]


def test_items_of_a_folder_are_joined_by_a_property_in_the_order_of_their_dates(tmp_path):
    for k, (day, tile) in enumerate([(20, "x"), (3, "x"), (5, "y")]):
        (tmp_path / f"{k}").mkdir()
        (tmp_path / f"{k}" / "item.json").write_text(json.dumps(item(f"i{k}", day, tile, B02="B02.tif")))
    (tmp_path / "catalog.json").write_text('{"type": "Catalog"}')
    found = stac.tiles(tmp_path, "tile")
    assert {t["id"][0]: t["B02"] for t in found} == {
        "x": [str(tmp_path / "1" / "B02.tif"), str(tmp_path / "0" / "B02.tif")],
        "y": [str(tmp_path / "2" / "B02.tif")],
    }


def test_items_that_cannot_be_told_apart_are_refused(tmp_path):
    items = [item("a", 1, "x", B="b.tif")] * 2
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    with pytest.raises(ClusterError, match="two items are called a.*--stac-group"):
        stac.tiles(tmp_path / "items.json")
    with pytest.raises(ClusterError, match='has no property "grid"; it has datetime, tile'):
        stac.tiles(tmp_path / "items.json", "grid")


# -------------------------------------------------------------------------------------------------
# What is refused before the first job


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*COPY, "-foo", "1"), "-foo is not a parameter of Mapper"),
        (("--", "-in1", "{scne}", "-out", "{out}"), r"no \{scne\}; there is \{id\} \{scene\}"),
        (("--", "-in1", "{scene}"), "nothing is written"),
        (("--", "-in1", "{scene}", "-out", "same.tif"), r"as tile t0, -out does: put \{id\}"),
        (("--", "-in1", "{scene}", "-out", "/abs/{id}.tif"), "inside the folder of --out"),
        (("--", "-in1", "{scene}", "-out", "../{id}.tif"), "inside the folder of --out"),
        (("--", "-in1", "{scene}", "-out", "{id}.png"), "written as .tif"),
        (("--", "-in1", "{scene}", "-out", "{out}?&box=0:0:1:1"), "--windows, not &box="),
        (("--", "-in1", "{scene}", "-out", "{out}", "-out", "{out}"), "given twice"),
        ((), "command line of Mapper is missing"),
        (("--windows", "64", *COPY), "one of --tiles, --stac and --windows"),
        (("--scheduler", "tcp://h:1", *COPY), "--workers"),
        (("--retries", "-1", *COPY), "--retries: found -1"),
    ],
)
def test_what_is_refused(mapper, capsys, words, message):
    code, said = run(*tiles(mapper), *words)
    assert code == 2 and re.search(message, said), said
    assert not (mapper / "maps").exists()


def test_inputs_that_cannot_be_read_are_all_listed(mapper, monkeypatch):
    monkeypatch.setitem(applications.TABLE, "Mapper", applications.Files(images=("in1",), read=("thr",)))
    applications.application.cache_clear()
    words = tiles(mapper)
    (mapper / "s0.tif").unlink()
    (mapper / "s2.tif").write_text("no image")
    code, said = run(*words, *COPY, "-thr", "absent.txt")
    assert code == 2 and "5 input(s) cannot be read" in said
    assert "t0: -in1 s0.tif" in said and "t2: -in1 s2.tif" in said and "-thr absent.txt: no such file" in said


def test_an_application_that_is_not_there(mapper, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    code, said = run("Nothing", "--tiles", "t.csv", "--out", "maps", *COPY)
    assert code == 2 and "otbcli_Nothing is not found" in said and "SiameseCD" in said


def test_a_folder_where_nothing_can_be_written(mapper):
    (mapper / "maps").write_text("a file")
    code, said = run(*tiles(mapper), *COPY)
    assert code == 2 and "cannot be written" in said


def test_windows_are_of_applications_that_give_the_same_pixels_by_parts(mapper):
    tiles(mapper)
    code, said = run("Mapper", "--windows", "16", "--out", "m.tif", "--", "-in1", "s0.tif", "-out", "{out}")
    assert code == 2 and "not known to give the same pixels by parts" in said


def test_without_dask_the_message_says_what_to_do(mapper, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    code, said = run(*tiles(mapper)[:-2], *COPY)
    assert code == 2 and "python3-distributed" in said and "--workers 0" in said and "--print-array" in said


# -------------------------------------------------------------------------------------------------
# Jobs in this process


def test_tiles_are_made_once_and_again_when_something_changed(mapper):
    words = tiles(mapper)
    code, said = run(*words, *COPY)
    assert code == 0 and "3 tiles: 0 finished before, 3 to do" in said
    for k in range(3):
        assert (read(mapper / f"s{k}.tif") == read(mapper / "maps" / f"t{k}" / "out.tif")).all()
    assert not list((mapper / "maps").rglob("*part*")) or not os.listdir(mapper / "maps" / "jobs" / "parts")
    before = {p: p.stat().st_mtime_ns for p in (mapper / "maps").rglob("*.tif")}
    code, said = run(*words, *COPY)
    assert code == 0 and "3 finished before, 0 to do" in said
    assert before == {p: p.stat().st_mtime_ns for p in before}
    assert "0 to do" in run(*words, *COPY, "-ram", "512")[1], "no pixel depends on it"

    code, said = run(*words, *COPY, "-thr", "0.5")
    assert code == 0 and "t1 again: -thr unset -> 0.5" in said and "0 finished before" in said
    os.utime(mapper / "s1.tif", ns=(1, 1))
    code, said = run(*words, *COPY, "-thr", "0.5")
    assert code == 0 and "2 finished before, 1 to do" in said and "t1 again: s1.tif was changed" in said
    (mapper / "maps" / "t2" / "out.tif").unlink()
    code, said = run(*words, *COPY, "-thr", "0.5")
    assert code == 0 and "t2 again: t2/out.tif is gone" in said and "1 to do" in said


def test_by_checksum_a_new_date_is_no_change_and_new_pixels_are(mapper):
    words = tiles(mapper)[:-2] + ["--workers", "0", "--checksum"]
    assert run(*words, *COPY)[0] == 0
    os.utime(mapper / "s1.tif", ns=(1, 1))
    assert "0 to do" in run(*words, *COPY)[1]
    before = os.stat(mapper / "s1.tif")
    write(mapper / "s1.tif", noise(seed=99))
    os.utime(mapper / "s1.tif", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "1 to do" in run(*words, *COPY)[1]


def test_the_files_behind_a_virtual_raster_a_model_and_a_list_are_known(mapper, monkeypatch):
    files = applications.Files(images=("in1",), read=("thr",))
    monkeypatch.setitem(applications.TABLE, "Mapper", files)
    tiles(mapper, 2)
    gdal.BuildVRT(str(mapper / "v.vrt"), [str(mapper / "s0.tif")]).FlushCache()
    (mapper / "a.pt").write_text("weights")
    (mapper / "a.mlm.json").write_text("{}")
    (mapper / "list.txt").write_text("# models\na.pt\n")
    request = jobs.Request(applications.application("Mapper"), [], mapper, mapper)
    job = request.job("t", [["in1", ["v.vrt?&bands=1"]], ["thr", ["list.txt"]]], [])
    known = {os.path.basename(p) for p in jobs.describe(job)["inputs"]}
    assert known == {"v.vrt", "s0.tif", "list.txt", "a.pt", "a.mlm.json"}
    first = jobs.describe(job)
    (mapper / "a.mlm.json").write_text('{"a": 1}')
    assert jobs.what_changed(first, jobs.describe(job)) == "a.mlm.json was changed"


def test_patterns_become_the_files_they_mean(mapper, monkeypatch):
    monkeypatch.setitem(applications.TABLE, "Mapper", applications.Files(images=("in1",)))
    applications.application.cache_clear()
    words = tiles(mapper, 2)
    code, said = run(*words, "--dry-run", "--", "-in1", "s*.tif", "-out", "{out}")
    assert code == 0 and "-in1 s0.tif s1.tif -out" in said and "t0: new" in said
    assert not (mapper / "maps").exists(), "nothing is written"


def test_tiles_of_stac_items_are_made(mapper):
    items = []
    for k, (tile, day) in enumerate([("x", 9), ("x", 2), ("y", 1)]):
        write(mapper / f"i{k}.tif", noise(seed=k))
        items.append(item(f"i{k}", day, tile, scene=f"i{k}.tif"))
    (mapper / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    words = ("Mapper", "--stac", "items.json", "--out", "maps", "--workers", "0")
    assert run(*words, *COPY)[0] == 0
    for k in range(3):
        assert (read(mapper / "maps" / f"i{k}" / "out.tif") == noise(seed=k)).all()
    code, said = run(*words, "--stac-group", "tile", "--", "-in1", "{scene@-1}", "-out", "{id}_{tile@1}.tif")
    assert code == 0, said
    assert (read(mapper / "maps" / "x_x.tif") == noise(seed=0)).all(), "the last date"
    assert (read(mapper / "maps" / "y_y.tif") == noise(seed=2)).all()


def test_a_failure_is_told_and_others_go_on(mapper, monkeypatch):
    monkeypatch.setenv("EXTRA", 'case "$*" in *s1.tif*) echo "2026 (FATAL) Mapper: too small"; exit 1 ;; esac')
    words = tiles(mapper)
    code, said = run(*words, *COPY)
    assert code == 1
    assert "1 of 3 failed" in said and re.search(r"t1 +2  Mapper: too small", said), said
    assert (mapper / "maps" / "t2" / "out.tif").exists() and not (mapper / "maps" / "t1").exists()
    assert "too small" in (mapper / "maps" / "jobs" / "t1.log").read_text()
    monkeypatch.setenv("EXTRA", "")
    code, said = run(*words, *COPY)
    assert code == 0 and "2 finished before, 1 to do" in said


def test_what_a_signal_ended_is_tried_again_as_often_as_asked(mapper, monkeypatch):
    monkeypatch.setenv("EXTRA", f"echo x >> {mapper}/tries; [ $(wc -l < {mapper}/tries) -gt 2 ] || kill -9 $$")
    code, said = run(*tiles(mapper, 1), *COPY)
    assert code == 0 and "ended by signal 9; it is tried again" in said
    assert len((mapper / "tries").read_text().split()) == 3
    (mapper / "tries").unlink()
    code, said = run(*tiles(mapper, 1), "--retries", "1", *COPY, "-thr", "1")
    assert code == 1 and "Mapper was ended by signal 9" in said


@pytest.mark.parametrize("extra", ["exit 0", 'out=; for w in "$@"; do out=${w%%\\?*}; done; echo none > "$out"; exit 0'])
def test_a_map_that_is_not_there_or_not_whole_is_no_result(mapper, monkeypatch, extra):
    monkeypatch.setenv("EXTRA", extra)
    code, said = run(*tiles(mapper, 1), *COPY)
    assert code == 1 and ("wrote no out.tif" in said or "cannot be read" in said), said
    assert [p.name for p in (mapper / "maps").rglob("*") if p.is_file() and "jobs" not in p.parts] == []


def test_a_job_of_an_invocation_that_is_over_writes_nothing(mapper):
    tiles(mapper, 1)
    state = mapper / "maps" / "jobs"
    state.mkdir(parents=True)
    application = applications.application("Mapper")
    request = jobs.Request(application, [("in1", ["{scene}"]), ("out", ["{out}"])], mapper / "maps", state)
    [job] = jobs.tile_jobs(request, jobs.read_csv("tiles.csv"), "t")
    old = execute.begin(state)
    new = execute.begin(state)
    assert execute.run_job(job, 1, 1, old)["state"] == "superseded"
    assert not (mapper / "maps" / "t0").exists()
    assert execute.run_job(job, 1, 1, new)["state"] == "done"
    assert execute.run_job(job, 1, 1, new)["state"] == "skipped"


def test_what_a_killed_attempt_left_goes(mapper):
    words = tiles(mapper, 1)
    stale = mapper / "maps" / "jobs" / "parts" / "t0.123"
    stale.mkdir(parents=True)
    (stale / "half.tif").write_text("half")
    assert run(*words, *COPY)[0] == 0
    assert os.listdir(mapper / "maps" / "jobs" / "parts") == []


def test_parts_of_a_job_are_those_of_its_name_alone(tmp_path):
    for name in ("t1.aa", "t1.5.bb", "t11.cc"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    execute.remove_parts(tmp_path, "t1")
    assert sorted(os.listdir(tmp_path / "parts")) == ["t1.5.bb", "t11.cc"]


def test_files_that_a_run_no_longer_writes_go_with_their_map(mapper, monkeypatch):
    words = tiles(mapper, 1)
    monkeypatch.setenv("EXTRA", 'out=; for w in "$@"; do out=${w%%\\?*}; done; echo style > "${out%.tif}.qml"')
    assert run(*words, *COPY)[0] == 0 and (mapper / "maps" / "t0" / "out.qml").exists()
    monkeypatch.setenv("EXTRA", "")
    assert run(*words, *COPY[:-2], "-thr", "1", "-out", "{out}")[0] == 0
    assert not (mapper / "maps" / "t0" / "out.qml").exists()


def test_two_commands_do_not_share_a_folder(mapper):
    plan = commands.Plan("Mapper", str(mapper / "m"), str(mapper / "m" / "jobs"), "tiff", [])
    commands.make_folders(plan)
    with commands.alone(plan), pytest.raises(ClusterError, match="another otbtorch-run is at work"):
        with commands.alone(plan):
            pass


# -------------------------------------------------------------------------------------------------
# Windows


@pytest.mark.parametrize(("step", "overlap"), [(1, False), (7, False), (8, True), (144, False)])
@pytest.mark.parametrize("side", [(16, 16), (50, 20), (1000, 1000)])
def test_windows_cover_each_pixel_once(step, overlap, side):
    width, height = 101, 67
    patches = jobs.Patches(step, overlap, False)
    windows = jobs.cut(width, height, side, patches)
    seen = np.zeros((height, width), int)
    for x, y, w, h in windows:
        assert x % step == 0 and y % step == 0 and w > 0 and h > 0
        seen[y : y + h, x : x + w] += 1
    assert (seen == 1).all()
    once, more = jobs.repeated(windows, width, height, patches)
    # By brute force: the patches that touch each window.
    touched = []
    for x, y, w, h in windows:
        lead = step if overlap else 0
        core = 2 * step if overlap else step
        touched += [
            (i, j)
            for i in range(-1, (x + w) // step + 3)
            for j in range(-1, (y + h) // step + 3)
            if i * step - lead < x + w and i * step - lead + core > x
            and j * step - lead < y + h and j * step - lead + core > y
            and i >= 0 and j >= 0
        ] if step > 1 else []
    if step > 1:
        assert once == len(set(touched)) and more == len(touched) - once
    if not overlap:
        assert more == 0


def test_windows_are_even():
    patches = jobs.Patches(144, False, False)
    windows = jobs.cut(4096, 8192, (2048, 2048), patches)
    assert {w for _, _, w, _ in windows} == {2160, 1936} and {h for _, _, _, h in windows} == {2160, 1712}
    assert len(windows) == 8
    assert jobs.cut(100, 60, (1000, 59), None) == [(0, 0, 100, 30), (0, 30, 100, 30)]


@pytest.mark.parametrize("total, wanted", [(349, 144), (3000, 2048), (5000, 3456), (100, 1000)])
def test_windows_are_no_longer_than_asked_for_but_to_a_whole_patch(total, wanted):
    for step in (1, 144):
        patches = jobs.Patches(step, False, False) if step > 1 else None
        for _, _, w, h in jobs.cut(total, total, (wanted, wanted), patches):
            assert w <= -(-wanted // step) * step and w > 0


def test_what_an_image_is_made_of_counts(tmp_path):
    """Virtual rasters of virtual rasters, archives, files beside a Shapefile."""
    image = tmp_path / "a.tif"
    gdal.GetDriverByName("GTiff").Create(str(image), 4, 4).SetGeoTransform((0, 1, 0, 0, 0, -1))
    gdal.BuildVRT(str(tmp_path / "b.vrt"), [str(image)]).FlushCache()
    gdal.BuildVRT(str(tmp_path / "c.vrt"), [str(tmp_path / "b.vrt")]).FlushCache()
    assert str(image) in jobs._parts(str(tmp_path / "c.vrt"), True)
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(image, "in/a.tif")
    assert jobs._parts(f"/vsizip/{tmp_path}/z.zip/in/a.tif", True) == [str(tmp_path / "z.zip")]
    shapefile = gdal.GetDriverByName("ESRI Shapefile").Create(str(tmp_path / "s.shp"), 0, 0, 0)
    shapefile.CreateLayer("s")
    del shapefile
    assert str(tmp_path / "s.dbf") in jobs._parts(str(tmp_path / "s.shp"), False)


def test_an_item_without_an_asset_does_not_shift_the_others():
    with pytest.raises(ClusterError, match="an item has no .B02@1."):
        jobs.substitute("{B02@1}", {"B02": [None, "b.tif"]}, "tile x")
    assert jobs.substitute("{B02@2}", {"B02": [None, "b.tif"]}, "tile x") == ["b.tif"]


@pytest.mark.parametrize("name", ["plan", "assembled"])
def test_names_of_its_own_are_no_tiles(name):
    with pytest.raises(ClusterError, match="name of otbtorch-run's own"):
        jobs.check_ids([{"id": [name]}], "--tiles")


def test_tasks_of_an_array_exclude_commands_and_themselves(tmp_path):
    plan = types.SimpleNamespace(state=str(tmp_path), folder=str(tmp_path))
    with commands.sharing(plan, "a"), commands.sharing(plan, "b"):
        with pytest.raises(ClusterError, match="another otbtorch-run is at work on a"), commands.sharing(plan, "a"):
            pass
        with pytest.raises(ClusterError, match="another otbtorch-run"), commands.alone(plan):
            pass
    with commands.alone(plan), pytest.raises(ClusterError, match="another"), commands.sharing(plan, "a"):
        pass


def test_queued_workers_offer_the_gpu_that_jobs_ask_for(monkeypatch):
    given = {}

    class Cluster:
        def __init__(self, **options):
            given.update(options)
            raise RuntimeError("enough")

    monkeypatch.setitem(sys.modules, "dask_jobqueue", types.SimpleNamespace(SLURMCluster=Cluster, PBSCluster=Cluster))
    pytest.importorskip("distributed")
    with pytest.raises((RuntimeError, ClusterError)), schedule.queued("slurm", {"cores": 1, "memory": "1GB"}, 1, gpu=True):
        pass
    assert given["worker_extra_args"] == ["--resources", "GPU=1"]


def test_too_many_windows_are_refused():
    with pytest.raises(ClusterError, match="100000000 windows of 1 x 1 pixels; choose larger ones"):
        jobs.cut(10000, 10000, (1, 1), None)
    for text in ("0", "12x", "1x2x3", "-5", "big"):
        with pytest.raises(ClusterError, match="expected 2048, 4096x2048 or auto"):
            jobs.parse_side(text)
    assert jobs.parse_side("300x20") == (300, 20) and jobs.parse_side("auto") is None


def test_the_grid_of_patches_follows_the_contract(tmp_path):
    model = testing.valid_models()["unet.pt"] if "unet.pt" in testing.valid_models() else None
    assert model is not None
    testing.write_models(str(tmp_path))
    application = applications.Application("SiameseCD", frozenset(), frozenset(), applications.TABLE["SiameseCD"])

    def patches(**words):
        words = [(k, [v]) for k, v in words.items()]
        return jobs.patches_of(jobs.Request(application, words, tmp_path, tmp_path, cwd=str(tmp_path)))

    from otbtorch import contract

    tiling = contract.read(tmp_path / "unet.pt").data["properties"]["otb:tiling"]
    cut = contract.ceil_to_multiple(tiling["halo"], tiling["multiple"])
    assert patches(model="unet.pt").step == tiling["patch"] - 2 * cut
    wider = contract.ceil_to_multiple(tiling["halo"] + 3, tiling["multiple"])
    assert patches(model="unet.pt", window="7").step == tiling["patch"] - 2 * wider
    blended = patches(model="unet.pt", blend="hann")
    assert blended.step == tiling["patch"] // 2 and blended.overlap
    (tmp_path / "both.txt").write_text("unet.pt\n")
    assert patches(model="both.txt").step == patches(model="unet.pt").step


def dressed(path, array, x=0, y=0, legend=True, **options):
    """A window of a map with colours, names, notes and a style."""
    write(path, array, x=500000.0 + 10 * x, y=4800000.0 - 10 * y, **options)
    made = gdal.Open(str(path), gdal.GA_Update)
    made.SetMetadataItem("NOTE", "threshold 1.5 & more")
    band = made.GetRasterBand(1)
    band.SetDescription("change")
    if legend:
        table = gdal.ColorTable()
        table.SetColorEntry(1, (224, 60, 49, 255))
        band.SetColorTable(table)
        band.SetCategoryNames(["no", "yes"])
    del band, made
    path.with_suffix(".qml").write_text("<qgis/>")


@pytest.mark.parametrize("format", ["tiff", "cog"])
@pytest.mark.parametrize("case", ["classes", "bands", "signed"])
def test_one_map_of_windows_has_their_pixels_and_all_they_say(tmp_path, format, case):
    width, height, rng = 101, 67, np.random.default_rng(3)
    whole = {
        "classes": rng.integers(0, 2, (height, width)).astype("uint8"),
        "bands": rng.normal(size=(3, height, width)).astype("float32"),
        "signed": rng.integers(0, 255, (height, width)).astype("uint8"),
    }[case]
    nodata = {"classes": 1, "bands": -1.0, "signed": None}[case]  # a value that pixels have, too
    if case == "bands":
        whole[:, 5:9, 5:9] = -1.0
        whole[1, 20, 20] = np.nan
    folder = tmp_path / "parts & more"
    folder.mkdir()
    parts = []
    for k, (x, y, w, h) in enumerate(jobs.cut(width, height, (40, 30), None)):
        path = folder / f"{k}.tif"
        dressed(path, whole[..., y : y + h, x : x + w], x, y, case == "classes", nodata=nodata, kind="int8" if case == "signed" else None)
        parts.append((str(path), (x, y, w, h)))
    like = gdal.Open(parts[0][0])
    grid = {"width": width, "height": height, "transform": like.GetGeoTransform()}
    target = tmp_path / "map.tif"
    (tmp_path / "map.tif.aux.xml").write_text("<PAMDataset/>")  # of an older map
    if case == "signed" and format == "cog":
        with pytest.raises(assemble.MapError, match="signed bytes"):
            assemble.join_windows(parts, grid, target, format, {})
        assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif.aux.xml", "parts & more"]
        return
    files = assemble.join_windows(parts, grid, target, format, {"COMPRESS": "DEFLATE"})
    made = gdal.Open(str(target))
    assert read(target).tobytes() == whole.tobytes()
    assert made.GetMetadataItem("COMPRESSION", "IMAGE_STRUCTURE") == "DEFLATE"
    assert made.GetMetadataItem("LAYOUT", "IMAGE_STRUCTURE") == ("COG" if format == "cog" else None)
    assert made.GetRasterBand(1).GetBlockSize() == [512, 512]
    assert made.GetGeoTransform() == like.GetGeoTransform() and made.GetProjection() == like.GetProjection()
    assert made.GetMetadataItem("NOTE") == "threshold 1.5 & more"
    band = made.GetRasterBand(1)
    assert band.GetDescription() == "change" and band.GetNoDataValue() == nodata
    if case == "classes":
        assert band.GetColorTable().GetColorEntry(1)[:3] == (224, 60, 49)
        assert band.GetCategoryNames()[:2] == ["no", "yes"]
    else:
        assert not (tmp_path / "map.tif.aux.xml").exists(), "that of an older map is gone"
    if case == "signed":
        assert band.GetMetadataItem("PIXELTYPE", "IMAGE_STRUCTURE") == "SIGNEDBYTE"
    assert str(target.with_suffix(".qml")) in files and target.with_suffix(".qml").read_text() == "<qgis/>"
    assert not [p for p in tmp_path.iterdir() if ".part" in p.name]


def test_windows_that_do_not_fit_make_no_map(tmp_path):
    array = noise(20, 10)
    write(tmp_path / "a.tif", array)
    write(tmp_path / "b.tif", array, x=500000.0 + 10 * 20 + 4)
    grid = {"width": 40, "height": 10, "transform": (500000.0, 10.0, 0.0, 4800000.0, 0.0, -10.0)}
    parts = [(str(tmp_path / "a.tif"), (0, 0, 20, 10)), (str(tmp_path / "b.tif"), (20, 0, 20, 10))]
    with pytest.raises(assemble.MapError, match="does not lie where its window is"):
        assemble.join_windows(parts, grid, tmp_path / "m.tif", "tiff", {})
    write(tmp_path / "b.tif", array.astype("float32"), x=500000.0 + 10 * 20)
    with pytest.raises(assemble.MapError, match="other bands, type"):
        assemble.join_windows(parts, grid, tmp_path / "m.tif", "tiff", {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_a_map_without_a_georeference_is_joined_as_well(tmp_path):
    array = noise(40, 10)
    parts = []
    for k in range(2):
        write(tmp_path / f"{k}.tif", array[:, 20 * k : 20 * k + 20], epsg=None)
        parts.append((str(tmp_path / f"{k}.tif"), (20 * k, 0, 20, 10)))
    grid = {"width": 40, "height": 10, "transform": None}
    assemble.join_windows(parts, grid, tmp_path / "m.tif", "tiff", {})
    assert (read(tmp_path / "m.tif") == array).all()
    assert gdal.Open(str(tmp_path / "m.tif")).GetGeoTransform(can_return_null=True) is None


# -------------------------------------------------------------------------------------------------
# Tiles


def test_a_vrt_for_each_projection(tmp_path):
    places = [(500000.0, 32631), (500200.0, 32631), (300000.0, 32632)]
    for k, (x, epsg) in enumerate(places):
        (tmp_path / f"{k}").mkdir()
        dressed(tmp_path / f"{k}" / "out.tif", noise(20, 10, k))
        write(tmp_path / f"{k}" / "out.tif", noise(20, 10, k), x=x, epsg=epsg)
    paths = [tmp_path / f"{k}" / "out.tif" for k in range(3)]
    files = assemble.join_tiles(tmp_path, "out", paths)
    assert [os.path.basename(f) for f in files if f.endswith(".vrt")] == ["out_EPSG32631.vrt", "out_EPSG32632.vrt"]
    assert (read(tmp_path / "out_EPSG32631.vrt") == np.hstack([noise(20, 10, 0), noise(20, 10, 1)])).all()
    shutil.copytree(tmp_path, tmp_path.parent / "moved")
    assert read(tmp_path.parent / "moved" / "out_EPSG32631.vrt").shape == (10, 40), "names are relative"
    assert (tmp_path / "out_EPSG32631.qml").exists()


def test_tiles_become_cogs_of_the_same_pixels(mapper):
    code, said = run(*tiles(mapper), "--format", "cog", *COPY)
    assert code == 0, said
    made = gdal.Open(str(mapper / "maps" / "t1" / "out.tif"))
    assert made.GetMetadataItem("LAYOUT", "IMAGE_STRUCTURE") == "COG"
    assert (made.ReadAsArray() == read(mapper / "s1.tif")).all()
    assert "Wrote" in said and (read(mapper / "maps" / "out.vrt") == np.hstack([noise(seed=k) for k in range(3)])).all()


# -------------------------------------------------------------------------------------------------
# Job arrays

SBATCH = """#!/bin/sh
# Runs at once what it is given, as SLURM would later.
cat > script.$$
range=0-0
for w in "$@"; do case $w in --array=*) range=${w#--array=} ;; esac; done
echo "$@" >> submitted
for k in $(seq ${range%-*} ${range#*-}); do SLURM_ARRAY_TASK_ID=$k sh script.$$ >&2 || true; done
echo 42
"""
QSUB = SBATCH.replace("--array=*) range=${w#--array=}", "[0-9]*-[0-9]*) range=$w").replace("SLURM_ARRAY_TASK_ID", "PBS_ARRAY_INDEX")


@pytest.mark.parametrize(("kind", "program", "text"), [("slurm", "sbatch", SBATCH), ("pbs", "qsub", QSUB)])
def test_a_job_array_does_what_the_command_does(mapper, monkeypatch, kind, program, text):
    (mapper / "bin" / program).write_text(text)
    (mapper / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{mapper / 'bin'}:{os.environ['PATH']}")
    words = tiles(mapper)
    code, script = run(*words, "--threads", "3", "--print-array", kind, *COPY)
    assert code == 0 and not (mapper / "maps" / "t0").exists()
    done = subprocess.run(["sh"], input=script, cwd=mapper, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    submitted = (mapper / "submitted").read_text().splitlines()
    assert len(submitted) == 2 and "afterany:42" in submitted[1]
    assert ("--cpus-per-task=3" if kind == "slurm" else "ncpus=3") in submitted[0]
    for k in range(3):
        assert (read(mapper / f"s{k}.tif") == read(mapper / "maps" / f"t{k}" / "out.tif")).all()
    assert (mapper / "maps" / "out.vrt").exists()
    assert "3 finished before, 0 to do" in run(*words, *COPY)[1]


def test_an_array_of_one_is_none_for_pbs():
    text = arrays.script("pbs", "plan.json", 1, 1, "SiameseCD", "/state", gpu=True)
    assert "-J" not in text and "ngpus=1" in text and "PBS_ARRAY_INDEX:-0" in text


def test_a_plan_that_is_none_and_a_job_that_is_not_in_it(mapper):
    (mapper / "p.json").write_text("{}")
    assert run("--plan", "p.json", "--job", "0")[0] == 2
    words = tiles(mapper)
    assert run(*words, "--print-array", "slurm", *COPY)[0] == 0
    code, said = run("--plan", "maps/jobs/plan.json", "--job", "3")
    assert code == 2 and "expected 0 to 2" in said
    code, said = run("--plan", "maps/jobs/plan.json", "--assemble")
    assert code == 1 and "3 of 3 are not finished: t0 t1 t2" in said
    assert run("--job", "1")[0] == 2


# -------------------------------------------------------------------------------------------------
# What is said meanwhile


def test_progress_is_one_line_on_a_terminal_and_some_elsewhere():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    done = {"id": "a", "state": "done", "reason": "", "pixels": 3000000}
    for stream in (Terminal(), io.StringIO()):
        progress = schedule.Progress(4, stream, every=1000.0)
        for state in ("done", "skipped", "failed"):
            progress.count(dict(done, state=state))
            progress.show(1)
        progress.start -= 60
        progress.end()
        text = stream.getvalue()
        assert text.count("\n") == 1 and "2/4 done, 0 running, 1 failed, 1:00, about 0:20 left, 0.10 megapixels/s" in text
        assert ("\r" in text) == stream.isatty()


def test_clock():
    assert [schedule.clock(s) for s in (5, 75, 3675)] == ["0:05", "1:15", "1:01:15"]


def test_gpus_are_those_that_are_allowed(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert schedule.gpu_names(2) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert schedule.gpu_names(2) == ["3", "5"]
    with pytest.raises(ClusterError, match="allows 2"):
        schedule.gpu_names(3)


def test_memory_is_shared(monkeypatch):
    monkeypatch.setattr(execute, "machine_memory", lambda: 8 << 30)
    assert execute.share_of_memory(1) == 2048 and execute.share_of_memory(4) == 1024
    assert execute.share_of_memory(100) == 256
    assert execute.share_of_memory(2, 4 << 30) == 1024


def test_pixels_are_compared_to_the_last_bit(tmp_path):
    """GDAL's own check sum of numbers below one half is that of zeros."""
    array = np.full((300, 40), 0.25, "float32")
    write(tmp_path / "a.tif", array)
    array[290, 3] = np.nextafter(np.float32(0.25), np.float32(1))
    write(tmp_path / "b.tif", array)
    one, two = (gdal.Open(str(tmp_path / f"{n}.tif")) for n in "ab")
    assert assemble._same_pixels(one, one) and not assemble._same_pixels(one, two)


def test_signed_bytes_in_a_cog_are_refused_before_the_first_job(mapper):
    with open(mapper / "bin" / "help", "a") as stream:
        stream.write("        -featurestype <string>  How  (optional, off by default)\n")
    code, said = run(*tiles(mapper), "--format", "cog", *COPY, "-featurestype", "int8")
    assert code == 2 and "no signed bytes" in said


def test_of_many_reasons_some_are_said(mapper, monkeypatch):
    monkeypatch.setattr(commands, "MOST_REASONS", 2)
    words = tiles(mapper)
    assert run(*words, *COPY)[0] == 0
    said = run(*words, *COPY, "-thr", "1")[1]
    assert said.count(" again: ") == 2 and "and 1 more" in said


def test_a_folder_belongs_to_one_application(tmp_path):
    job = {"id": "a", "state": str(tmp_path)}
    record = {"hash": "x", "description": {"application": "SiameseCD"}}
    jobs.record_of(job).write_text(json.dumps(record))
    plan = types.SimpleNamespace(jobs=[job], folder=str(tmp_path), application="SiameseCD")
    commands._check_owner(plan)
    plan.application = "ChangeLikelihood"
    with pytest.raises(ClusterError, match="holds results of SiameseCD: take another folder"):
        commands._check_owner(plan)


def test_outputs_of_an_earlier_command_stay(tmp_path):
    """Only files beside outputs that are written again go."""
    record = {
        "description": {"outputs": [["out", "a/t50.tif", "", ""]]},
        "files": {"a/t50.tif": 1, "a/t50.qml": 1},
    }
    assert execute._left_beside(record, {"a/t90.tif"}) == set()
    assert execute._left_beside(record, {"a/t50.tif"}) == {"a/t50.qml"}


def test_images_without_a_transform_but_with_control_points_are_no_windows(tmp_path):
    image = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "g.tif"), 8, 8)
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(4326)
    image.SetGCPs([gdal.GCP(x, y, 0, x, y) for x, y in ((0, 0), (8, 0), (0, 8), (8, 8))], crs)
    del image
    files = types.SimpleNamespace(grid=("in1",), images=("in1",), read=())
    application = types.SimpleNamespace(files=files, name="SiameseCD")
    request = types.SimpleNamespace(application=application, words=[["in1", [str(tmp_path / "g.tif")]]], cwd=str(tmp_path))
    with pytest.raises(ClusterError, match="ground control points"):
        jobs.grid_of(request)
