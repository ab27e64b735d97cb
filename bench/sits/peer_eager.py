"""The peer: classification of a series as a plain Python script does it.

GDAL windows, NumPy gap filling (``np.interp``, pixel by pixel and band by band), eager PyTorch in
batches of 4096, windows written one by one. Nothing is tuned: this is what one finds in notebooks.
"""

import datetime
import sys

import numpy as np
import torch
from osgeo import gdal

from otbtorch import contract as contracts
from otbtorch.models import TempCNN


def main(model_path, weights, stem, out_path, blocks):
    """Classifies ``blocks`` x ``blocks`` windows of 256 pixels of a stack."""
    data = contracts.read(model_path)[0]["properties"]
    series = data["mlm:input"][0]
    classes = data["mlm:output"][0]["classification:classes"]
    steps, bands = series["input"]["shape"][1:3]
    mean = np.array([s["mean"] for s in series["value_scaling"]], "float32")
    std = np.array([s["stddev"] for s in series["value_scaling"]], "float32")
    with open(stem + ".txt") as f:
        days = [datetime.date.fromisoformat(line.strip()).toordinal() for line in f if line.strip()]
    grid = series["otb:temporal"]["grid"]
    first = datetime.date.fromisoformat(f"2018-{grid['start']}").toordinal()
    target = first + grid["step"] * np.arange(steps)
    net = TempCNN(bands, steps, len(classes))
    net.load_state_dict(torch.load(weights))
    net.eval()

    stack, mask = gdal.Open(stem + ".tif"), gdal.Open(stem + "-mask.tif")
    side = 256 * int(blocks)
    out = gdal.GetDriverByName("GTiff").Create(out_path, side, side, 1, gdal.GDT_Byte)
    with torch.no_grad():
        for y in range(0, side, 256):
            for x in range(0, side, 256):
                raw = stack.ReadAsArray(x, y, 256, 256).reshape(len(days), bands, -1)
                valid = mask.ReadAsArray(x, y, 256, 256).reshape(len(days), -1) == 0
                filled = np.zeros((raw.shape[2], steps, bands), "float32")
                days_array = np.array(days)
                for p in range(raw.shape[2]):
                    good = valid[:, p]
                    for b in range(bands):
                        filled[p, :, b] = np.interp(target, days_array[good], raw[good, b, p])
                filled = (filled - mean) / std
                labels = np.concatenate(
                    [net(torch.from_numpy(part)).argmax(1).numpy() + 1
                     for part in np.array_split(filled, len(filled) // 4096)]
                )  # fmt: skip
                out.GetRasterBand(1).WriteArray(labels.reshape(256, 256).astype("uint8"), x, y)
    out.FlushCache()


if __name__ == "__main__":
    main(*sys.argv[1:])
