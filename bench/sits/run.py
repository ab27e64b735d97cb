"""Speed and memory of TimeSeriesClassify: see bench/README.md."""

import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from osgeo import gdal, ogr, osr

import otbtorch
from otbtorch import contract as contracts
from otbtorch.models import TempCNN

HERE = os.path.dirname(os.path.abspath(__file__))
BANDS = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
CLASSES = [{"value": k + 1, "name": f"class {k + 1}"} for k in range(17)]
TILES = ["TILED=YES", "BLOCKXSIZE=256", "BLOCKYSIZE=256", "INTERLEAVE=PIXEL", "BIGTIFF=YES"]

gdal.UseExceptions()


def run(command):
    """Wall seconds, peak resident megabytes (as the log says, else 0) and output of a command."""
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    peak = re.search(r"peak memory (\d+) MB", done.stdout)
    return seconds, float(peak.group(1)) if peak else 0.0, done.stdout


def create(path, width, height, bands, kind, options):
    system = osr.SpatialReference()
    system.ImportFromEPSG(32631)
    image = gdal.GetDriverByName("GTiff").Create(path, width, height, bands, kind, options)
    image.SetGeoTransform((500000, 10, 0, 5400000, 0, -10))
    image.SetProjection(system.ExportToWkt())
    return image


def write_dates(path, count):
    first = datetime.date(2018, 1, 3)
    days = [first + datetime.timedelta(days=int(k * 360 / count)) for k in range(count)]
    with open(path, "w") as f:
        f.write("\n".join(d.isoformat() for d in days) + "\n")
    return days


def write_series(folder, size, count, clouds=0.3):
    """A stack of ten bands and ``count`` dates, int16, and its validity: random as clouds are."""
    stem = os.path.join(folder, f"series-{size}-{count}")
    days = write_dates(stem + ".txt", count)
    if not os.path.exists(stem + ".tif"):
        random = np.random.default_rng(0)
        stack = create(stem + ".tif", size, size, 10 * count, gdal.GDT_Int16, TILES)
        mask = create(stem + "-mask.tif", size, size, count, gdal.GDT_Byte, TILES)
        for y in range(0, size, 256):
            rows = min(256, size - y)
            stack.WriteArray(random.integers(100, 5000, (10 * count, rows, size), dtype="int16"), 0, y)
            cloudy = random.random((count, rows, size), dtype="float32") < clouds
            mask.WriteArray(cloudy.astype("uint8"), 0, y)
    return stem, days


def contract_of(grid):
    scaling = contracts.z_score([1500.0] * 10, [900.0] * 10)
    return contracts.time_series(
        "bench-tempcnn", [contracts.series("x", BANDS, scaling, grid=grid)], classes=CLASSES,
        architecture="TempCNN", license="Apache-2.0", training_data="none: random weights",
    )  # fmt: skip


def random_forest(folder, steps, size):
    """A Random Forest on as many features, and a gap-filled stack for it: (model, stack)."""
    model, stack = os.path.join(folder, "forest.txt"), os.path.join(folder, f"filled-{size}.tif")
    features = 10 * steps
    random = np.random.default_rng(1)
    if not os.path.exists(stack):
        out = create(stack, size, size, features, gdal.GDT_Int16, TILES)
        for y in range(0, size, 256):
            rows = min(256, size - y)
            out.WriteArray(random.integers(100, 5000, (features, rows, size), dtype="int16"), 0, y)
    if not os.path.exists(model):
        samples = os.path.join(folder, "samples.sqlite")
        source = ogr.GetDriverByName("SQLite").CreateDataSource(samples)
        layer = source.CreateLayer("output", geom_type=ogr.wkbPoint)
        layer.CreateField(ogr.FieldDefn("class", ogr.OFTInteger))
        for k in range(features):
            layer.CreateField(ogr.FieldDefn(f"value_{k}", ogr.OFTReal))
        layer.StartTransaction()
        for k in range(5000):
            feature = ogr.Feature(layer.GetLayerDefn())
            feature.SetField("class", k % len(CLASSES) + 1)
            for i, v in enumerate(random.integers(100, 5000, features) + 150 * (k % len(CLASSES))):
                feature.SetField(i + 1, float(v))
            layer.CreateFeature(feature)
        layer.CommitTransaction()
        del source
        run(
            ["otbcli_TrainVectorClassifier", "-io.vd", samples, "-cfield", "class", "-feat"]
            + [f"value_{k}" for k in range(features)]
            + ["-classifier", "rf", "-classifier.rf.max", "25", "-classifier.rf.nbtrees", "100",
               "-classifier.rf.min", "10", "-io.out", model]
        )  # fmt: skip
    return model, stack


def speed(options, folder):
    """The application beside the bare model, a plain script and a Random Forest, in turn."""
    torch.manual_seed(0)
    grid = ("01-10", "12-20", 10)
    contract = contract_of(grid)
    steps = contract["properties"]["mlm:input"][0]["input"]["shape"][1]
    net = TempCNN(10, steps, len(CLASSES)).eval()
    model, weights = os.path.join(folder, "tempcnn.pt"), os.path.join(folder, "tempcnn-weights.pt")
    otbtorch.export(net, contract, model)
    torch.save(net.state_dict(), weights)
    size, dates = options.size, 40
    stem, _ = write_series(folder, size, dates)
    app = os.path.join(options.build, "bin", "otbcli_TimeSeriesClassify")
    bare = os.path.join(options.build, "bin", "otbdlBareModel")
    out = os.path.join(folder, "labels.tif")
    rows, peer, forest = [], 0.0, 0.0
    for k in range(options.runs):
        ours, memory, log = run(
            [app, "-in", stem + ".tif", "-dates", stem + ".txt", "-maskl", stem + "-mask.tif",
             "-model", model, "-out", out, "-confmap", out + ".c.tif", "-ram", "1024"]
        )  # fmt: skip
        batch = re.search(r"Batch of (\d+)", log).group(1)
        times = re.search(r"of which model ([\d.]+), reading ([\d.]+), packing ([\d.]+)", log)
        limit = float(run([bare, model, str(size * size), str(os.cpu_count()), batch])[2])
        if k == 0:
            # A part of the image is enough for what is slow; its time is scaled to the whole.
            script, part = os.path.join(HERE, "peer_eager.py"), max(1, size // 256 // 2)
            seconds = run([sys.executable, script, model, weights, stem, out, str(part)])[0]
            peer = seconds * (size / 256) ** 2 / part**2
            rf, stack = random_forest(folder, steps, size)
            forest = run(
                ["otbcli_ImageClassifier", "-in", stack, "-model", rf, "-out", out, "-confmap",
                 out + ".c.tif", "-ram", "1024"]
            )[0]  # fmt: skip
        rows.append((ours, limit, *map(float, times.groups()), memory))
        print(f"  run: ours {ours:.1f} s, bare {limit:.1f} s", flush=True)
    ratio = statistics.median(r[1] / r[0] for r in rows)
    packing = statistics.median(r[4] / r[2] for r in rows)
    pixels = size * size
    print(f"\nSpeed, {size} x {size} x 10 bands x {dates} dates (int16, 30 % clouds), gaps filled "
          f"onto {steps} dates, TempCNN of {sum(p.numel() for p in net.parameters())} parameters:")

    def line(name, seconds):
        print(f"  {name:58s} {seconds:8.1f} s {pixels / seconds / 1000:8.1f} thousand pixels/s")

    line("application, whole process", statistics.median(r[0] for r in rows))
    line("bare frozen model, same number of pixels in memory", statistics.median(r[1] for r in rows))
    line("plain Python: GDAL windows, NumPy gap filling, eager torch", peer)
    line("OTB's ImageClassifier, Random Forest, gaps filled beforehand", forest)
    print(f"  bare model / application = {ratio:.3f} (aim: at least 0.9)")
    print(f"  gap filling, scaling, packing / inference = {packing:.3f} (aim: below 0.1)")
    print(f"  plain Python / application = {peer / statistics.median(r[0] for r in rows):.2f}")
    return {"bare_over_application": ratio, "packing_over_model": packing, "rows": rows,
            "peer": peer, "forest": forest}  # fmt: skip


class Mean(torch.nn.Module):
    """A network that costs next to nothing: the mean of the series decides between two classes."""

    def forward(self, x, valid):
        m = (x * valid.unsqueeze(-1)).sum((1, 2)) / valid.sum(1).clamp(min=1.0)
        return torch.stack((m, -m), 1)


def memory(options, folder):
    """Peak memory as images and series grow. Sparse files: zeros that take no disk."""
    bands = ["B4", "B8"]
    contract = contracts.time_series(
        "bench-mean",
        [contracts.series("x", bands, contracts.z_score([0.0] * 2, [1.0] * 2), gapfill="none"),
         contracts.validity("valid", "valid")],
        classes=CLASSES[:2], license="Apache-2.0", training_data="none",
    )  # fmt: skip
    model = os.path.join(folder, "mean.pt")
    otbtorch.export(Mean(), contract, model)
    app = os.path.join(options.build, "bin", "otbcli_TimeSeriesClassify")
    out = os.path.join(folder, "memory.tif")

    def peak(side, dates, ram):
        stem = os.path.join(folder, f"sparse-{side}-{dates}")
        write_dates(stem + ".txt", dates)
        sparse = ["SPARSE_OK=TRUE", "TILED=YES", "BLOCKXSIZE=256", "BLOCKYSIZE=256"]
        create(stem + ".tif", side, side, 2 * dates, gdal.GDT_Int16, sparse + ["INTERLEAVE=PIXEL"])
        create(stem + "-mask.tif", side, side, dates, gdal.GDT_Byte, sparse + ["INTERLEAVE=PIXEL"])
        return run(
            [app, "-in", stem + ".tif", "-dates", stem + ".txt", "-maskl", stem + "-mask.tif",
             "-model", model, "-out", out, "-confmap", out + ".c.tif", "-ram", str(ram)]
        )  # fmt: skip

    table = []
    print("\nMemory (peak resident, MB), a network that costs nothing, outputs out + confmap:")
    print(f"  {'-ram':>6s} {'side':>6s} {'dates':>6s} {'peak':>8s} {'above 64 x 64':>14s} {'of -ram':>8s}")
    for ram in options.ram:
        constant = peak(64, 10, ram)[1]
        for side in options.sides:
            for dates in options.dates:
                seconds, most, _ = peak(side, dates, ram)
                table.append((ram, side, dates, most, constant, seconds))
                print(f"  {ram:6d} {side:6d} {dates:6d} {most:8.0f} {most - constant:14.0f} "
                      f"{(most - constant) / ram:8.2f}  ({seconds:.0f} s)", flush=True)
    return {"memory": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--size", type=int, default=1024, help="side of the image for speed")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ram", type=int, nargs="+", default=[256])
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 4096, 10240])
    parser.add_argument("--dates", type=int, nargs="+", default=[10, 30, 70])
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    folder = os.path.join(options.build, "bench", "sits")
    os.makedirs(folder, exist_ok=True)
    results = {}
    if options.only != "memory":
        results.update(speed(options, folder))
    if options.only != "speed":
        results.update(memory(options, folder))
    with open(os.path.join(folder, "results.json"), "w") as f:
        json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
