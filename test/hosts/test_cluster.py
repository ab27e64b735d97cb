"""otbtorch-run on dask.distributed: tiles and windows equal single runs, whatever is killed."""

import concurrent.futures
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import BIN, MODELS, REPOSITORY
from osgeo import gdal, osr

pytest.importorskip("distributed", reason="dask.distributed is not installed")

gdal.UseExceptions()
MODEL = MODELS / "demo-l7.pt"
ENVIRONMENT = dict(os.environ, OTBTORCH_BIN=str(BIN), PYTHONPATH=str(REPOSITORY / "python"))
# Copies the file after -in1 to the one after -out, slowly; says which GPU it may use.
PROGRAM = """#!/bin/sh
if [ "$1" = -help ]; then cat "$(dirname "$0")/help"; exit 0; fi
echo "GPU ${CUDA_VISIBLE_DEVICES:-none}, threads $ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
echo "$@ MALLOC ${MALLOC_TRIM_THRESHOLD_:-as it was}"
sleep ${SECONDS_EACH:-0.2}
while [ $# -gt 0 ]; do
  case $1 in -in1) in=$2 ;; -out) out=${2%%\\?*} ;; esac
  shift
done
cp "$in" "$out"
"""
HELP = """
MISSING -in1        <string>         Image
MISSING -out        <string> [pixel] Map
        -ram        <int32>          Memory
"""


def start(folder, *words, **variables):
    """Starts otbtorch-run in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", "otbtorch", "run"] + [str(w) for w in words],
        cwd=folder,
        env=dict(ENVIRONMENT, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder, *words, code=0, **variables):
    """What otbtorch-run prints; asserts how it ended."""
    with start(folder, *words, **variables) as process:
        said = process.communicate(timeout=300)[0]
    assert process.returncode == code, said
    return said


def single(application, **parameters):
    """One run of the application, as a user's command line does it."""
    words = [w for k, v in parameters.items() for w in [f"-{k}"] + (v if isinstance(v, list) else [v])]
    done = subprocess.run(
        [str(BIN / f"otbcli_{application}")] + [str(w) for w in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(ENVIRONMENT, ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS="1"),
    )
    assert done.returncode == 0, done.stdout


def read(path):
    return gdal.Open(str(path)).ReadAsArray()


def assert_same(made, wanted):
    """The same pixels bit for bit, and the same that the file says of them."""
    a, b = gdal.Open(str(made)), gdal.Open(str(wanted))
    one, two = a.ReadAsArray(), b.ReadAsArray()
    assert one.dtype == two.dtype and one.tobytes() == two.tobytes(), made
    assert a.GetGeoTransform() == b.GetGeoTransform() and a.GetProjection() == b.GetProjection()
    assert a.GetMetadata() == b.GetMetadata()
    for k in range(1, a.RasterCount + 1):
        p, q = a.GetRasterBand(k), b.GetRasterBand(k)
        for ask in ("GetNoDataValue", "GetDescription", "GetCategoryNames", "GetMetadata"):
            assert getattr(p, ask)() == getattr(q, ask)(), (made, ask)
        assert (p.GetColorTable() is None) == (q.GetColorTable() is None)
        assert (p.GetDefaultRAT() is None) == (q.GetDefaultRAT() is None)
    styles = [pathlib.Path(p).with_suffix(".qml") for p in (made, wanted)]
    assert styles[0].exists() == styles[1].exists()
    if styles[1].exists():
        assert styles[0].read_text() == styles[1].read_text()


def assert_no_left_overs(folder):
    for path in pathlib.Path(folder).rglob("*"):
        assert ".part" not in path.name, path
        assert path.parent.name != "parts", path
        assert path.name != "windows", path


def test_keys_that_are_known_to_name_files_are_those_of_the_applications():
    from otbtorch.cluster.applications import TABLE, application

    for name, files in TABLE.items():
        found = application(name)
        known = {*files.images, *files.read, *files.either, *files.grid, *files.written}
        assert known <= found.keys, name
        assert not known & found.images_written, name
    assert application("SiameseCD").images_written == {"out", "proba", "sem1", "sem2", "conf"}


# -------------------------------------------------------------------------------------------------
# Processes


def _processes():
    """{pid: (parent, command line)}"""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if status[0] != "Z":
                found[int(entry.name)] = (int(status[1]), words)
    return found


def descendants(pid):
    """{pid: command line} of all that a process started, and what that started."""
    processes, found, new = _processes(), {}, [pid]
    while new:
        new = [p for p, (parent, _) in processes.items() if parent in new and p not in found]
        found.update({p: processes[p][1] for p in new})
    return found


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def busy_worker(process, program):
    """(worker, its application) where one is at work."""
    assert process.poll() is None, process.communicate()[0]
    for pid in descendants(process.pid):
        words = _processes().get(pid, (0, ""))[1]
        if "multiprocessing.spawn" in words:
            below = descendants(pid)
            # Not the guard, whose command line holds that of the application.
            for child, words in below.items():
                if program in words and " -c " not in words:
                    return pid, child
    return None


def kill_twice(process, program):
    """kill -9 of a worker at work, twice; its application ends as well."""
    for _ in range(2):
        worker, child = wait_for(lambda: busy_worker(process, program))
        os.kill(worker, signal.SIGKILL)
        wait_for(lambda: child not in _processes(), 10)


# -------------------------------------------------------------------------------------------------
# Scenes


def crop(source, target, window):
    gdal.Translate(str(target), gdal.Open(str(source)), srcWin=window)


def enlarge(source, target, width, height):
    """The image beside its mirror image, again and again."""
    found = gdal.Open(str(source))
    array = found.ReadAsArray()
    columns, rows = (np.abs((np.arange(n) + s) % (2 * s) - s) for n, s in ((width, array.shape[2] - 1), (height, array.shape[1] - 1)))
    made = gdal.GetDriverByName("GTiff").Create(str(target), width, height, len(array), found.GetRasterBand(1).DataType)
    made.SetProjection(found.GetProjection())
    made.SetGeoTransform(found.GetGeoTransform())
    for k, plane in enumerate(array):
        band = made.GetRasterBand(k + 1)
        band.WriteArray(plane[np.ix_(rows, columns)])
        if found.GetRasterBand(k + 1).GetNoDataValue() is not None:
            band.SetNoDataValue(found.GetRasterBand(k + 1).GetNoDataValue())


@pytest.fixture(scope="module")
def twelve(pair, tmp_path_factory):
    """A folder with twelve tiles of the demonstration pair, their table, and single runs of all."""
    folder = tmp_path_factory.mktemp("twelve")
    lines, runs = ["id,before,after"], []
    for k in range(12):
        name, window = f"t{k:02d}", [(k % 4) * 87, (k // 4) * 117, 87, 117]
        crop(pair[0], folder / f"{name}_1.tif", window)
        crop(pair[1], folder / f"{name}_2.tif", window)
        lines.append(f"{name},{name}_1.tif,{name}_2.tif")
        (folder / "single" / name).mkdir(parents=True)
        runs.append(
            dict(
                in1=folder / f"{name}_1.tif",
                in2=folder / f"{name}_2.tif",
                model=MODEL,
                out=folder / "single" / name / "out.tif",
                proba=folder / "single" / name / "proba.tif",
            )
        )
    (folder / "tiles.csv").write_text("\n".join(lines) + "\n")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda words: single("SiameseCD", **words), runs))
    return folder


TWELVE = ("-in1", "{before}", "-in2", "{after}", "-model", MODEL, "-out", "{out}", "-proba", "{out}")


def assert_twelve(folder, made):
    for k in range(12):
        for key in ("out", "proba"):
            assert_same(folder / made / f"t{k:02d}" / f"{key}.tif", folder / "single" / f"t{k:02d}" / f"{key}.tif")
    assert_no_left_overs(folder / made)


# -------------------------------------------------------------------------------------------------
# Tiles


def test_twelve_tiles_on_two_workers_equal_single_runs_and_are_made_once(twelve):
    words = ("SiameseCD", "--tiles", "tiles.csv", "--out", "maps", "--workers", 2)
    said = run(twelve, *words, "--", *TWELVE)
    assert "12 tiles: 0 finished before, 12 to do" in said and "12/12 done" in said
    assert_twelve(twelve, "maps")
    logs = [(twelve / "maps" / "jobs" / f"t{k:02d}.log").read_text() for k in range(12)]
    assert all("Wrote" in log and " 1 thread(s)" in log for log in logs), "two workers share two cores"

    mosaic = gdal.Open(str(twelve / "maps" / "out.vrt"))
    assert (mosaic.RasterXSize, mosaic.RasterYSize) == (348, 351)
    assert mosaic.GetRasterBand(1).GetCategoryNames()[:2] == ["no-change", "change"]
    tile = read(twelve / "maps" / "t05" / "out.tif")
    assert (mosaic.ReadAsArray()[117:234, 87:174] == tile).all()
    assert (twelve / "maps" / "out.qml").exists()

    before = {p: p.stat().st_mtime_ns for p in (twelve / "maps").rglob("*.*") if p.name not in ("lock", "run")}
    said = run(twelve, *words, "--", *TWELVE)
    assert "12 finished before, 0 to do" in said
    assert before == {p: p.stat().st_mtime_ns for p in before}

    (twelve / "two.csv").write_text("".join((twelve / "tiles.csv").read_text().splitlines(True)[:3]))
    said = run(twelve, *words[:1], "--tiles", "two.csv", *words[3:], "--", *TWELVE, "-thr", "0.9")
    assert "0 finished before, 2 to do" in said and "t01 again: -thr unset -> 0.9" in said
    assert (read(twelve / "maps" / "t01" / "out.tif") != read(twelve / "single" / "t01" / "out.tif")).any()


def test_workers_killed_twice_lose_nothing_and_leave_nothing(twelve):
    process = start(twelve, "SiameseCD", "--tiles", "tiles.csv", "--out", "killed", "--workers", 2, "--", *TWELVE)
    with process:
        kill_twice(process, "otbApplicationLauncherCommandLine")
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0 and "12/12 done" in said and "worker(s) lost" in said, said
    assert_twelve(twelve, "killed")


def test_a_bad_tile_is_told_others_are_made_and_only_it_is_made_again(twelve):
    rows = (twelve / "tiles.csv").read_text().splitlines()[:3]
    rows[2] = "t01,t01_1.tif,small.tif"
    crop(twelve / "t01_2.tif", twelve / "small.tif", [0, 0, 50, 50])
    (twelve / "bad.csv").write_text("\n".join(rows) + "\n")
    words = ("SiameseCD", "--tiles", "bad.csv", "--out", "bad", "--workers", 2, "--", *TWELVE)
    said = run(twelve, *words, code=1)
    assert "1 of 2 failed" in said and re.search(r"t01 +2  SiameseCD: in2 \(small.tif\): found size 50 x 50", said), said
    assert not (twelve / "bad" / "t01").exists()
    crop(twelve / "t01_2.tif", twelve / "small.tif", [0, 0, 87, 117])
    said = run(twelve, *words)
    assert "1 finished before, 1 to do" in said
    for k in range(2):
        assert_same(twelve / "bad" / f"t0{k}" / "out.tif", twelve / "single" / f"t0{k}" / "out.tif")


# -------------------------------------------------------------------------------------------------
# Windows


@pytest.fixture(scope="module")
def wide(pair, tmp_path_factory):
    """A folder with a pair of 1200 x 900 pixels (1.tif, 2.tif) and the maps of a single run."""
    folder = tmp_path_factory.mktemp("wide")
    for k, source in enumerate(pair):
        enlarge(source, folder / f"{k + 1}.tif", 1200, 900)
    single("SiameseCD", in1=folder / "1.tif", in2=folder / "2.tif", model=MODEL, out=folder / "out.tif", proba=folder / "proba.tif")
    return folder


WIDE = ("-in1", "1.tif", "-in2", "2.tif")


def test_windows_of_one_pair_equal_a_single_run_though_workers_are_killed(wide):
    words = ("SiameseCD", "--windows", 430, "--out", "windows", "--workers", 2, "--", *WIDE, "-model", MODEL, "-out", "{out}", "-proba", "{out}")
    with start(wide, *words) as process:
        kill_twice(process, "otbApplicationLauncherCommandLine")
        said = process.communicate(timeout=300)[0]
    assert process.returncode == 0, said
    assert "9 windows of 432 x 432 of 1200 x 900 pixels; patches of 63: 0 made twice" in said
    for key in ("out", "proba"):
        assert_same(wide / "windows" / f"{key}.tif", wide / f"{key}.tif")
        assert gdal.Open(str(wide / "windows" / f"{key}.tif")).GetRasterBand(1).GetBlockSize() == [512, 512]
    assert_no_left_overs(wide / "windows")
    assert "finished and assembled: nothing to do" in run(wide, *words)
    logs = [p.read_text() for p in (wide / "windows" / "jobs").glob("*.log")]
    assert sum("Shift of" in log or "Shift between" in log for log in logs) == 1, "measured once"


def test_a_network_that_asks_for_the_whole_scene_gets_it_in_every_window(pair, tmp_path):
    for k in (1, 2):
        crop(pair[k - 1], tmp_path / f"{k}.tif", [0, 0, 349, 300])
    bands = "?&bands=1,2,3,4"
    given = dict(in1=f"{tmp_path}/1.tif{bands}", in2=f"{tmp_path}/2.tif{bands}", radiometry="match", model=MODELS / "siamese-s2.pt")
    single("SiameseCD", **given, out=tmp_path / "whole.tif")
    words = [w for k, v in given.items() for w in (f"-{k}", v)]
    said = run(tmp_path, "SiameseCD", "--windows", "180x600", "--out", "s2/map.tif", "--workers", 2, "--", *words, "-out", "{out}")
    assert "2 windows of 272 x 300" in said and "fits anew on the whole image" in said
    assert_same(tmp_path / "s2" / "map.tif", tmp_path / "whole.tif")


def test_windows_of_a_likelihood_and_of_a_series_equal_single_runs(wide, tmp_path):
    single("ChangeLikelihood", in1=wide / "1.tif", in2=wide / "2.tif", out=tmp_path / "out.tif", change=tmp_path / "change.tif")
    said = run(wide, "ChangeLikelihood", "--windows", 512, "--out", "score", "--", *WIDE, "-out", "{out}", "-change", "{out}")
    assert "the scores of the whole image: it runs as one job" in said
    for key in ("out", "change"):
        assert_same(wide / "score" / f"{key}.tif", tmp_path / f"{key}.tif")
    said = run(wide, "ChangeLikelihood", "--windows", 512, "--out", "no", "--", *WIDE, "-out", "{out}", "-objects", "o.gpkg", code=2)
    assert "polygons would be cut" in said

    series(tmp_path, 110, 70)
    given = dict(il=tmp_path / "stack.tif", dates=tmp_path / "dates.txt", maskl=tmp_path / "masks.tif", model=MODELS / "sits-s2-crops.pt")
    maps = ("labels", "confmap", "nvalid")
    keys = dict(zip(("out", "confmap", "nvalid"), maps))
    single("TimeSeriesClassify", **given, **{k: tmp_path / f"{v}.tif" for k, v in keys.items()})
    words = [w for k, v in given.items() for w in (f"-{k}", v)]
    outputs = [w for k, v in keys.items() for w in (f"-{k}", f"{v}.tif")]
    said = run(tmp_path, "TimeSeriesClassify", "--windows", "64x70", "--out", "parts", "--workers", 2, "--", *words, *outputs)
    assert "2 windows of 55 x 70 of 110 x 70 pixels" in said
    for name in maps:
        assert_same(tmp_path / "parts" / f"{name}.tif", tmp_path / f"{name}.tif")
    assert len(np.unique(read(tmp_path / "labels.tif"))) > 2, "the scene shows several classes"


def series(folder, width, height, dates=12, bands=4):
    """A stack of four bands, its dates and masks, with seasons that differ by field."""
    rng = np.random.default_rng(5)
    fields = rng.integers(0, 6, (height // 20 + 1, width // 20 + 1)).repeat(20, 0).repeat(20, 1)[:height, :width]
    stack = gdal.GetDriverByName("GTiff").Create(str(folder / "stack.tif"), width, height, dates * bands, gdal.GDT_Int16)
    masks = gdal.GetDriverByName("GTiff").Create(str(folder / "masks.tif"), width, height, dates, gdal.GDT_Byte)
    system = osr.SpatialReference()
    system.ImportFromEPSG(32631)
    for made in (stack, masks):
        made.SetProjection(system.ExportToWkt())
        made.SetGeoTransform((500000.0, 10.0, 0.0, 4800000.0, 0.0, -10.0))
    for d in range(dates):
        green = np.exp(-(((d - 2 - 1.5 * fields) / 2.0) ** 2))
        for b, (bare, leaf) in enumerate([(900, 400), (1100, 700), (1500, 300), (2000, 4500)][:bands]):
            plane = bare + (leaf - bare) * green + rng.normal(0, 60, (height, width))
            stack.GetRasterBand(d * bands + b + 1).WriteArray(plane.astype("int16"))
        masks.GetRasterBand(d + 1).WriteArray((rng.random((height, width)) < 0.2).astype("uint8"))
    (folder / "dates.txt").write_text("".join(f"2018{m:02d}15\n" for m in range(1, dates + 1)))


# -------------------------------------------------------------------------------------------------
# Workers


@pytest.fixture
def program(tmp_path):
    """An application that takes no time: copies. The folder of a test with six tiles."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "help").write_text(HELP)
    path = tmp_path / "bin" / "otbcli_Mapper"
    path.write_text(PROGRAM)
    path.chmod(0o755)
    made = gdal.GetDriverByName("GTiff").Create(str(tmp_path / "s.tif"), 8, 8)
    made.GetRasterBand(1).Fill(7)
    made.FlushCache()
    (tmp_path / "tiles.csv").write_text("id,scene\n" + "".join(f"t{k},s.tif\n" for k in range(6)))
    return tmp_path


MAPPER = ("Mapper", "--tiles", "tiles.csv", "--out", "maps")
COPY = ("--", "-in1", "{scene}", "-out", "{out}")


def logs(folder):
    return [(folder / "maps" / "jobs" / f"t{k}.log").read_text() for k in range(6)]


def test_each_gpu_has_a_worker_that_sees_no_other(program):
    variables = dict(OTBTORCH_BIN=str(program / "bin"), CUDA_VISIBLE_DEVICES="4,7")
    run(program, *MAPPER, "--gpus", 2, "--threads", 3, *COPY, **variables)
    assert sorted(os.listdir(program)) == ["bin", "maps", "s.tif", "tiles.csv"], "nothing else is left"
    assert {re.search(r"GPU (\S+), threads 3", log).group(1) for log in logs(program)} == {"4", "7"}
    assert all("MALLOC as it was" in log for log in logs(program))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_what_the_command_leaves_when_it_is_ended_itself_is_cleaned_up(program, number):
    variables = dict(OTBTORCH_BIN=str(program / "bin"))
    process = start(program, *MAPPER, "--workers", 2, *COPY, SECONDS_EACH="30", **variables)
    with process:
        wait_for(lambda: busy_worker(process, "otbcli_Mapper"))
        children = set(descendants(process.pid))
        process.send_signal(number)
        said = process.communicate(timeout=60)[0]
    if number == signal.SIGINT:
        assert process.returncode == 130 and "the same command goes on from there" in said, said
        assert "Traceback" not in said, said
        assert_no_left_overs(program / "maps")
    wait_for(lambda: not children & set(_processes()), 20)
    assert "6/6 done" in run(program, *MAPPER, "--workers", 2, *COPY, **variables)
    assert_no_left_overs(program / "maps")


def test_a_scheduler_that_is_there(program):
    variables = dict(OTBTORCH_BIN=str(program / "bin"))
    said = run(program, *MAPPER, "--scheduler", "tcp://127.0.0.1:9", "--timeout", 1, *COPY, code=2, **variables)
    assert "nothing answers at tcp://127.0.0.1:9 within 1 s" in said
    script = """if True:
        import os, sys
        from distributed import LocalCluster
        if __name__ == "__main__":
            with LocalCluster(1, threads_per_worker=2, memory_limit="2GiB", dashboard_address="127.0.0.1:0") as cluster:
                print(cluster.scheduler_address, flush=True)
                sys.stdin.read()
    """
    (program / "scheduler.py").write_text(script)
    process = subprocess.Popen(
        [sys.executable, program / "scheduler.py"],
        env=dict(ENVIRONMENT, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        address = process.stdout.readline().strip()
        said = run(program, *MAPPER, "--scheduler", address, "--gpus", 1, *COPY, code=2, **variables)
        assert "no worker of this scheduler has the resource GPU" in said
        assert "6/6 done" in run(program, *MAPPER, "--scheduler", address, *COPY, **variables)
        process.communicate("")
    assert all("GPU none, threads 1" in log for log in logs(program))
    assert all("-ram 512 " in log for log in logs(program)), "half of the worker's memory for two jobs"


JOBQUEUE = """
from distributed import LocalCluster

class SLURMCluster(LocalCluster):
    def __init__(self, cores, memory, queue):
        assert (cores, memory, queue) == (2, "4GB", "short"), (cores, memory, queue)
        super().__init__(0, threads_per_worker=1, dashboard_address="127.0.0.1:0")

    def scale(self, jobs):
        super().scale(jobs)

PBSCluster = SLURMCluster
"""


@pytest.mark.parametrize("kind", ["slurm", "pbs"])
def test_workers_of_a_queue(program, kind):
    """With a stand-in for dask-jobqueue, which has no queue here to submit to."""
    (program / "stand-in").mkdir()
    (program / "stand-in" / "dask_jobqueue.py").write_text(JOBQUEUE)
    path = f"{REPOSITORY / 'python'}:{program / 'stand-in'}"
    variables = dict(OTBTORCH_BIN=str(program / "bin"), PYTHONPATH=path)
    options = (f"--{kind}", "cores=2", "memory=4GB", "queue=short", "--workers", 2)
    if kind == "slurm":
        said = run(program, *MAPPER, f"--{kind}", "cores", *COPY, code=2, **variables)
        assert "expected KEY=VALUE" in said
        said = run(program, *MAPPER, f"--{kind}", "colour=2", *COPY, code=2, **variables)
        assert "--slurm: " in said and "colour" in said
    said = run(program, *MAPPER, *options, *COPY, **variables)
    assert "6/6 done" in said


def test_dask_jobqueue_that_is_not_there_is_said(program):
    blocked = program / "blocked"
    blocked.mkdir()
    (blocked / "dask_jobqueue.py").write_text("raise ImportError('blocked')\n")
    variables = dict(OTBTORCH_BIN=str(program / "bin"), PYTHONPATH=f"{REPOSITORY / 'python'}:{blocked}")
    said = run(program, *MAPPER, "--slurm", "cores=2", *COPY, code=2, **variables)
    assert "pip install dask-jobqueue" in said
