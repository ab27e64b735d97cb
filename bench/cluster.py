"""otbtorch-run: are its maps those of a single run, what do two workers gain, what does a kill cost?

``python3 bench/cluster.py [--build build] [--side 8192] [--tile 1024] [--window 2048] [--work DIR]``

Twelve tiles, and one image of 8192 x 8192 pixels in windows, both enlarged from the demonstration
scene (its mirror images side by side, 6 bands, uint8), through SiameseCD with data/models/demo-l7.pt
(``out`` and ``proba``). Each is run with one worker, with two, and with two of which one is killed
(kill -9) twice while it works; every worker has one thread. All pixels are compared with those of
runs of the application by itself. The second invocation of each must compute nothing.

Efficiency is the time of one worker / (2 x the time of two); it says little where other programs
use the machine meanwhile, so the load is printed as well, and seconds of processor time, which say
what the processes cost beside the application by itself.
"""

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
from osgeo import gdal

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))
MODEL = ROOT / "data" / "models" / "demo-l7.pt"
LAUNCHER = "otbApplicationLauncherCommandLine"
gdal.UseExceptions()


def enlarge(source, target, size, first=(0, 0)):
    """Mirror images of the source side by side, from a pixel on; in strips."""
    found = gdal.Open(str(source))
    array = found.ReadAsArray()
    made = gdal.GetDriverByName("GTiff").Create(
        str(target), size, size, len(array), gdal.GDT_Byte, ["TILED=YES", "BIGTIFF=IF_SAFER"]
    )
    x, dx, _, y, _, dy = found.GetGeoTransform()
    made.SetProjection(found.GetProjection())
    made.SetGeoTransform((x + first[0] * dx, dx, 0, y + first[1] * dy, 0, dy))

    def mirrored(start, count, n):
        return np.abs((np.arange(start, start + count) + n) % (2 * n) - n)

    columns = mirrored(first[0], size, array.shape[2] - 1)
    for row in range(0, size, 512):
        rows = mirrored(first[1] + row, min(512, size - row), array.shape[1] - 1)
        for k, plane in enumerate(array):
            made.GetRasterBand(k + 1).WriteArray(plane[np.ix_(rows, columns)], 0, row)
    for k in range(len(array)):
        nodata = found.GetRasterBand(k + 1).GetNoDataValue()
        if nodata is not None:
            made.GetRasterBand(k + 1).SetNoDataValue(nodata)


def equal(made, wanted):
    """Are all pixels the same, bit for bit?"""
    a, b = gdal.Open(str(made)), gdal.Open(str(wanted))
    if (a.RasterXSize, a.RasterYSize, a.RasterCount) != (b.RasterXSize, b.RasterYSize, b.RasterCount):
        return False
    return all(
        a.ReadAsArray(0, row, a.RasterXSize, min(512, a.RasterYSize - row)).tobytes()
        == b.ReadAsArray(0, row, b.RasterXSize, min(512, b.RasterYSize - row)).tobytes()
        for row in range(0, a.RasterYSize, 512)
    )


def processor():
    """Seconds of processor time of all processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


class Bench:
    def __init__(self, build, work):
        self.bin, self.work = pathlib.Path(os.environ.get("OTBTORCH_BIN", build / "bin")), work
        self.environment = dict(os.environ, OTBTORCH_BIN=str(self.bin), PYTHONPATH=str(ROOT / "python"))

    def single(self, threads, in1, in2, folder):
        """(seconds, of the processor) of one run of the application by itself."""
        folder.mkdir(parents=True, exist_ok=True)
        words = ["-in1", in1, "-in2", in2, "-model", MODEL, "-out", folder / "out.tif", "-proba", folder / "proba.tif"]
        start, used = time.monotonic(), processor()
        subprocess.run(
            [str(self.bin / "otbcli_SiameseCD")] + [str(w) for w in words] + ["-ram", "2048"],
            env=dict(self.environment, ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=str(threads), OMP_NUM_THREADS=str(threads)),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return np.array([time.monotonic() - start, processor() - used])

    def run(self, *words, kills=0):
        """``((seconds, of the processor), what it printed)`` of otbtorch-run; fails unless it ends well."""
        start, used = time.monotonic(), processor()
        with subprocess.Popen(
            [sys.executable, "-m", "otbtorch", "run", "SiameseCD"] + [str(w) for w in words],
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for _ in range(kills):
                time.sleep(3)
                os.kill(self.busy(process), signal.SIGKILL)
            said = process.communicate()[0]
        if process.returncode:
            raise SystemExit(said)
        return (time.monotonic() - start, processor() - used), said

    @staticmethod
    def busy(process):
        """A worker whose application is at work."""
        while process.poll() is None:
            table = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], stdout=subprocess.PIPE, text=True, check=True)
            rows = [line.split(None, 2) for line in table.stdout.splitlines()]
            parent = {int(p): int(q) for p, q, _ in rows}
            workers = {int(p) for p, q, a in rows if int(q) == process.pid and "multiprocessing.spawn" in a}
            for pid, _, words in rows:
                above = int(pid)
                while LAUNCHER in words and " -c " not in words and above in parent:
                    above = parent[above]
                    if above in workers:
                        return above
            time.sleep(0.1)
        raise SystemExit("it ended before a worker could be killed")

    def compare(self, name, words, pairs, single):
        """All runs of one kind; prints a row for each."""
        seconds = {}
        for label, workers, kills in (("1 worker", 1, 0), ("2 workers", 2, 0), ("2 workers, killed twice", 2, 2)):
            out = self.work / f"{name}-{workers}-{kills}"
            given = [*words[:2], "--out", out, "--workers", workers, "--threads", 1, *words[2:]]
            seconds[label], said = self.run(*given, kills=kills)
            same = all(equal(out / made, wanted) for made, wanted in pairs)
            left = [p for p in out.rglob("*") if ".part" in p.name or p.parent.name == "parts"]
            again, said = self.run(*given)
            idle = "0 to do" in said or "nothing to do" in said
            print(
                f"{name}, {label}: {seconds[label][0]:.1f} s ({seconds[label][1]:.0f} of the processor), pixels {'equal' if same else 'DIFFER'}, "
                f"{len(left)} left-overs, second invocation {again[0]:.1f} s, "
                + ("computes nothing" if idle else "COMPUTES"),
                flush=True,
            )
            shutil.rmtree(out)
            if not same or left or not idle:
                raise SystemExit(1)
        print(
            f"{name}: the application by itself, 1 thread: {single[0]:.1f} s ({single[1]:.0f} of the processor); "
            f"efficiency 1 worker / (2 x 2 workers) = "
            f"{seconds['1 worker'][0] / 2 / seconds['2 workers'][0]:.2f}; load of the machine {os.getloadavg()[0]:.1f} "
            f"of {os.cpu_count()} cores",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--side", type=int, default=8192)
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--window", type=int, default=2048)
    parser.add_argument("--work", type=pathlib.Path, help="a folder for some gigabytes; removed at the end")
    options = parser.parse_args()
    from otbtorch.recipes import demo_scene

    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        work = pathlib.Path(folder)
        bench = Bench(options.build, work)
        first = ROOT / "data" / "scene" / "date1.tif"
        demo_scene.main(["--date1", str(first), "--out", str(work)])
        outputs = ("--", "-model", MODEL, "-out", "{out}", "-proba", "{out}")

        lines, pairs, single = ["id,before,after"], [], np.zeros(2)
        for k in range(12):
            files = [work / f"t{k}_{d}.tif" for d in (1, 2)]
            for file, source in zip(files, (first, work / "date2.tif")):
                enlarge(source, file, options.tile, (k % 4 * options.tile, k // 4 * options.tile))
            lines.append(f"t{k},{files[0]},{files[1]}")
            single += bench.single(1, *files, work / "single" / f"t{k}")
            pairs += [(f"t{k}/{o}.tif", work / "single" / f"t{k}" / f"{o}.tif") for o in ("out", "proba")]
        (work / "tiles.csv").write_text("\n".join(lines) + "\n")
        name = f"12 tiles of {options.tile} x {options.tile}"
        bench.compare(name, ["--tiles", "tiles.csv", *outputs, "-in1", "{before}", "-in2", "{after}"], pairs, single)

        files = [work / f"whole_{d}.tif" for d in (1, 2)]
        for file, source in zip(files, (first, work / "date2.tif")):
            enlarge(source, file, options.side)
        single = bench.single(1, *files, work / "single" / "whole")
        pairs = [(f"{o}.tif", work / "single" / "whole" / f"{o}.tif") for o in ("out", "proba")]
        name = f"{options.side} x {options.side} in windows of {options.window}"
        bench.compare(name, ["--windows", options.window, *outputs, "-in1", files[0], "-in2", files[1]], pairs, single)


if __name__ == "__main__":
    main()
