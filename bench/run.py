"""Speed and memory of the applications: see bench/README.md."""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from osgeo import gdal, osr

import otbtorch
from otbtorch import contract as contracts
from otbtorch.models.unet import SiameseUNet, receptive_radius
from otbtorch.testing import main as make_test_models

HERE = os.path.dirname(os.path.abspath(__file__))
BANDS = ["B02", "B03", "B04", "B08"]


def run(command, **kwargs):
    """Wall seconds, peak resident megabytes (as the log says, else 0) and output of a command."""
    start = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs
    )
    seconds = time.monotonic() - start
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}")
    peak = re.search(r"peak memory (\d+) MB", done.stdout)
    return seconds, float(peak.group(1)) if peak else 0.0, done.stdout


def write_pair(folder, size):
    """Two uint16 images of four bands, tiles of 512, random as sensors are."""
    random = np.random.default_rng(0)
    reference = osr.SpatialReference()
    reference.ImportFromEPSG(32631)
    paths = []
    for date in (1, 2):
        path = os.path.join(folder, f"date{date}-{size}.tif")
        paths.append(path)
        if os.path.exists(path):
            continue
        image = gdal.GetDriverByName("GTiff").Create(
            path, size, size, 4, gdal.GDT_UInt16, ["TILED=YES", "BLOCKXSIZE=512", "BLOCKYSIZE=512"]
        )
        image.SetGeoTransform((500000, 10, 0, 5400000, 0, -10))
        image.SetProjection(reference.ExportToWkt())
        for y in range(0, size, 512):
            rows = min(512, size - y)
            image.WriteArray(random.integers(200, 4000, (4, rows, size)).astype("uint16"), 0, y)
        image.FlushCache()
    return paths


def write_mosaic(folder, tile_paths, tile, size):
    """Pairs of any size out of one tile, without their pixels on disk: VRT mosaics."""
    paths = []
    for date, tile_path in enumerate(tile_paths, 1):
        path = os.path.join(folder, f"date{date}-{size}.vrt")
        source = gdal.Open(tile_path)
        bands = []
        for band in range(1, 5):
            parts = []
            for y in range(0, size, tile):
                for x in range(0, size, tile):
                    w, h = min(tile, size - x), min(tile, size - y)
                    parts.append(
                        f'<SimpleSource><SourceFilename relativeToVRT="0">{tile_path}'
                        f"</SourceFilename><SourceBand>{band}</SourceBand>"
                        f'<SrcRect xOff="0" yOff="0" xSize="{w}" ySize="{h}"/>'
                        f'<DstRect xOff="{x}" yOff="{y}" xSize="{w}" ySize="{h}"/></SimpleSource>'
                    )
            bands.append(
                f'<VRTRasterBand dataType="UInt16" band="{band}">{"".join(parts)}</VRTRasterBand>'
            )
        with open(path, "w") as f:
            f.write(
                f'<VRTDataset rasterXSize="{size}" rasterYSize="{size}">'
                f"<SRS>{source.GetProjection()}</SRS>"
                f"<GeoTransform>500000,10,0,5400000,0,-10</GeoTransform>{''.join(bands)}</VRTDataset>"
            )
        paths.append(path)
    return paths


def speed(options, folder):
    """The application beside the bare model and beside the peer, in turn, so that drift cancels."""
    torch.manual_seed(0)
    depth = 3
    net = SiameseUNet(4, width=16, depth=depth).eval()
    model, weights = os.path.join(folder, "unet.pt"), os.path.join(folder, "unet-weights.pt")
    scaling = contracts.z_score([1105, 1355, 1552, 2743], [1809, 1757, 1888, 1742])
    halo = contracts.ceil_to_multiple(receptive_radius(depth), 2**depth)
    otbtorch.export(
        net,
        contracts.change_detection(
            "bench-unet", BANDS, scaling, patch=256, halo=halo, multiple=2**depth,
            license="Apache-2.0", training_data="none: random weights", nodata=0,
            architecture="FC-Siam-diff",
        ),
        model,
    )
    torch.save(net.state_dict(), weights)
    date1, date2 = write_pair(folder, options.size)
    app = os.path.join(options.build, "bin", "otbcli_SiameseCD")
    bare = os.path.join(options.build, "bin", "otbdlBareModel")
    out = os.path.join(folder, "probability.tif")
    rows = []
    for k in range(options.runs):
        ours, memory, log = run(
            [app, "-in1", date1, "-in2", date2, "-model", model, "-out", out + ".map.tif",
             "-proba", out, "-ram", "1024"]
        )  # fmt: skip
        patches = int(re.search(r"Patches: (\d+) inferred", log).group(1))
        batch = int(re.search(r"Batch of (\d+)", log).group(1))
        inside = float(re.search(r"of which model ([\d.]+)", log).group(1))
        limit = float(run([bare, model, str(patches), str(os.cpu_count()), str(batch)])[2])
        if k == 0:  # once: it takes longest, and is furthest from its aim
            script = os.path.join(HERE, "peer_eager.py")
            peer = run([sys.executable, script, model, weights, date1, date2, out])[0]
        rows.append((ours, limit, peer, inside, memory))
        print(f"  run: ours {ours:.1f} s, bare {limit:.1f} s, plain Python {peer:.1f} s", flush=True)
    ratio = statistics.median(o / b for o, b, _, _, _ in rows)
    gain = rows[0][2] / rows[0][0]
    print(f"\nSpeed, {options.size} x {options.size} x 4 bands x 2 dates, U-Net of 0.5 M parameters:")
    print(f"  {'application, whole process':42s} {statistics.median(r[0] for r in rows):8.1f} s")
    print(f"  {'  of which inside the model':42s} {statistics.median(r[3] for r in rows):8.1f} s")
    print(f"  {'bare frozen model, same patches in memory':42s} {statistics.median(r[1] for r in rows):8.1f} s")
    print(f"  {'plain Python: GDAL windows, eager, batch 16':42s} {statistics.median(r[2] for r in rows):8.1f} s")
    print(f"  application / bare model = {ratio:.3f} (aim: at most 1.05)")
    print(f"  plain Python / application = {gain:.2f} (aim: at least 3)")
    return {"application_over_bare": ratio, "python_over_application": gain, "rows": rows}


def memory(options, folder):
    """Peak memory as images grow, with a network that costs next to nothing."""
    models = os.path.join(folder, "models")
    make_test_models([models])
    model = os.path.join(models, "pixel.pt")
    app = os.path.join(options.build, "bin", "otbcli_SiameseCD")
    tile = 2048
    tiles = write_pair(folder, tile)
    small = write_mosaic(folder, tiles, tile, 64)
    table = []
    print("\nMemory (peak resident, MB), pixel model, outputs out + proba:")
    print(f"  {'-ram':>6s} {'side':>6s} {'peak':>8s} {'constant':>9s} {'peak - constant':>16s} {'of -ram':>8s}")
    for ram in options.ram:
        def peak(pair):
            out = os.path.join(folder, "memory.tif")
            return run([app, "-in1", pair[0], "-in2", pair[1], "-model", model, "-out", out,
                        "-proba", out + ".p.tif", "-ram", str(ram)])  # fmt: skip
        constant = peak(small)[1]
        for side in options.sides:
            seconds, most, _ = peak(write_mosaic(folder, tiles, tile, side))
            table.append((ram, side, most, constant, seconds))
            share = (most - constant) / ram
            print(f"  {ram:6d} {side:6d} {most:8.0f} {constant:9.0f} {most - constant:16.0f} {share:8.2f}  ({seconds:.0f} s)", flush=True)
    return {"memory": table}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--size", type=int, default=6144, help="side of the pair for speed")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--ram", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 8192, 16384])
    options = parser.parse_args()
    options.build = os.path.abspath(options.build)
    folder = os.path.join(options.build, "bench")
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
