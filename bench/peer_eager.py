"""The peer: change detection over a pair of rasters as a plain Python script does it.

GDAL windows with an overlap, NumPy scaling, eager PyTorch in batches of 16, the core of each window
written. Nothing is tuned: this is what one finds in notebooks.
"""

import sys

import numpy as np
import torch
from osgeo import gdal

from otbtorch import contract as contracts
from otbtorch.models.unet import SiameseUNet


def main(model_path, weights, path1, path2, out_path):
    data = contracts.read(model_path)[0]["properties"]
    tiling = data["otb:tiling"]
    patch, halo = tiling["patch"], contracts.ceil_to_multiple(tiling["halo"], tiling["multiple"])
    step = patch - 2 * halo
    scalings = [i["value_scaling"] for i in data["mlm:input"]]
    net = SiameseUNet(len(scalings[0]), width=16, depth=3)
    net.load_state_dict(torch.load(weights))
    net.eval()

    images = [gdal.Open(path1), gdal.Open(path2)]
    width, height = images[0].RasterXSize, images[0].RasterYSize
    out = gdal.GetDriverByName("GTiff").Create(out_path, width, height, 1, gdal.GDT_Float32)
    out.SetGeoTransform(images[0].GetGeoTransform())
    out.SetProjection(images[0].GetProjection())
    origins = [(x, y) for y in range(0, height, step) for x in range(0, width, step)]

    def window(image, scaling, x, y):
        x0, y0 = max(0, x - halo), max(0, y - halo)
        x1, y1 = min(width, x + step + halo), min(height, y + step + halo)
        a = image.ReadAsArray(x0, y0, x1 - x0, y1 - y0).astype("float32")
        pad = ((0, 0), (y0 - y + halo, y + step + halo - y1), (x0 - x + halo, x + step + halo - x1))
        a = np.pad(a, pad, mode="reflect")
        mean = np.array([s["mean"] for s in scaling], "float32")[:, None, None]
        std = np.array([s["stddev"] for s in scaling], "float32")[:, None, None]
        return (a - mean) / std

    with torch.no_grad():
        for first in range(0, len(origins), 16):
            batch = origins[first : first + 16]
            x1, x2 = (
                torch.from_numpy(np.stack([window(i, s, x, y) for x, y in batch]))
                for i, s in zip(images, scalings)
            )
            probability = torch.sigmoid(net(x1, x2))[:, 0].numpy()
            for (x, y), p in zip(batch, probability):
                p = p[halo : halo + min(step, height - y), halo : halo + min(step, width - x)]
                out.GetRasterBand(1).WriteArray(p, x, y)
    out.FlushCache()


if __name__ == "__main__":
    main(*sys.argv[1:])
