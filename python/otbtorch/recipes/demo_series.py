"""Simulate a season of Sentinel-2 over a small landscape, for the demonstration.

    python3 -m otbtorch.recipes.demo_series --out demo/series

Fields of maize and of permanent grass, farms and roads. NDVI follows the double logistic function
of Beck et al. (Remote Sensing of Environment 100, 2006), with dates of growth and harvest of the
crops' calendars in Belgium (maize between two catch crops) and a few days of difference between fields; reflectances are a linear
mixture of soil and vegetation; clouds and their shadows drift over it and are masked as a cloud
mask would, imperfectly. Nothing here was measured: labels are known exactly, and easier to find than
those of a real season.

Writes ``s2.tif`` (date-major stack, 10 m, B02 B03 B04 B08, reflectance x 10000), ``s2_mask.tif`` (0
= valid), ``s2_dates.txt`` and ``truth.tif`` (1 maize, 2 permanent grass, 3 no cropland).
"""

import argparse
import datetime
import os
import sys

import numpy as np

WIDTH, HEIGHT = 240, 200  # pixels of 10 m
TRANSFORM = (501360.0, 10.0, 0.0, 5629680.0, 0.0, -10.0)
EPSG = 32631
YEAR = 2020
#: NDVI at rest and at its height, day of half growth, its rate, day of half decline, its rate. A
#: class may have several seasons: the fields of maize bear a catch crop before it and after it.
CURVES = {
    1: [(0.18, 0.72, -60, 0.10, 118, 0.20), (0.18, 0.88, 165, 0.10, 262, 0.15),
        (0.18, 0.60, 312, 0.10, 500, 0.10)],  # maize
    2: [(0.62, 0.86, 85, 0.06, 320, 0.05)],  # permanent grass
    3: [(0.14, 0.22, 110, 0.05, 290, 0.05)],  # no cropland
}
# Reflectances of B02, B03, B04, B08 x 10000.
SOIL = np.array([900.0, 1100.0, 1350.0, 2100.0])
VEGETATION = np.array([250.0, 600.0, 300.0, 4600.0])
ROOFS = np.array([1100.0, 1250.0, 1400.0, 2000.0])


def double_logistic(day, low, high, start, growth, end, decline):
    """NDVI of a day of the year (Beck et al. 2006, equation 3)."""
    up = 1 / (1 + np.exp(-growth * (day - start)))
    down = 1 / (1 + np.exp(decline * (day - end)))
    return low + (high - low) * (up + down - 1)


def landscape(random):
    """(class, field) of each pixel: fields are the cells of a jittered grid, cut by roads."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    points = [(r + random.uniform(4, 21), c + random.uniform(4, 21))
              for r in range(0, HEIGHT, 25) for c in range(0, WIDTH, 25)]
    skew = 0.15 * x
    distance = np.stack([(y - r + skew - 0.15 * c) ** 2 + (x - c) ** 2 for r, c in points])
    field = distance.argmin(0)
    kinds = random.choice([1, 1, 2, 2, 2, 3], len(points))
    label = kinds[field]
    label[np.abs(y - 0.3 * x - 60) < 2] = 3
    label[np.abs(x - 0.4 * y - 90) < 2] = 3
    return label.astype(np.uint8), field


def smooth(random, scale, shape=(HEIGHT, WIDTH)):
    """A random field with structures of about ``scale`` pixels, mean 0, standard deviation 1."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    filtered = np.exp(-2 * (np.pi * scale / 3) ** 2 * (rows**2 + columns**2))
    made = np.fft.ifft2(np.fft.fft2(random.standard_normal(shape)) * filtered).real
    return (made - made.mean()) / made.std()


def ndvi_of(day, label, shift, vigour):
    """NDVI of all pixels at a day; ``shift`` in days and ``vigour`` around 1, of each pixel."""
    out = np.zeros(label.shape)
    for kind, seasons in CURVES.items():
        curve = np.max([double_logistic(day - shift, *season) for season in seasons], axis=0)
        out = np.where(label == kind, curve * vigour, out)
    return np.clip(out, 0.02, 0.95)


def simulate(seed=1):
    """(label, dates, reflectances [T, 4, H, W], mask [T, H, W])."""
    random = np.random.default_rng(seed)
    label, field = landscape(random)
    fields = field.max() + 1
    shift = random.normal(0, 6, fields)[field]
    vigour = random.normal(1, 0.04, fields)[field]
    wet = 1 + 0.12 * random.standard_normal(fields)[field]
    first = datetime.date(YEAR, 1, 28)

    days = [first + datetime.timedelta(days=int(k)) for k in range(0, 310, 6)]
    s2, masks = [], []
    for day in days:
        green = ndvi_of(day.timetuple().tm_yday, label, shift, vigour)
        cover = np.clip((green - 0.12) / 0.76, 0, 1)
        ground = np.where((label == 3)[None], ROOFS[:, None, None], SOIL[:, None, None] * wet)
        image = ground * (1 - cover) + VEGETATION[:, None, None] * cover
        image *= 1 + 0.03 * random.standard_normal(image.shape)
        clouds = smooth(random, 45) + random.normal(-0.2, 1.2)  # some days are all clouds
        thick = np.clip((clouds - 0.2) / 0.5, 0, 1)
        shadow = np.roll(thick, (9, -7), (0, 1)) * (1 - thick)
        image = image * (1 - 0.6 * shadow)
        image = image * (1 - thick) + thick * (5500 + 300 * smooth(random, 8))
        s2.append(np.clip(image, 1, 12000).round().astype(np.int16))
        masks.append(((thick > 0.15) | (shadow > 0.3)).astype(np.uint8))

    return label, days, np.stack(s2), np.stack(masks)


def write(path, bands, kind):
    """Writes bands [K, H, W] as a tiled GeoTIFF."""
    from osgeo import gdal, osr

    gdal.UseExceptions()
    count, height, width = bands.shape
    options = ["TILED=YES", "COMPRESS=DEFLATE", "INTERLEAVE=PIXEL"]
    out = gdal.GetDriverByName("GTiff").Create(path, width, height, count, kind, options)
    system = osr.SpatialReference()
    system.ImportFromEPSG(EPSG)
    out.SetProjection(system.ExportToWkt())
    out.SetGeoTransform(TRANSFORM)
    out.WriteArray(bands)
    out.FlushCache()


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m otbtorch.recipes.demo_series",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="demo/series", help="folder to write")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    from osgeo import gdal

    os.makedirs(args.out, exist_ok=True)
    label, days, s2, masks = simulate(args.seed)

    def path(name):
        return os.path.join(args.out, name)

    write(path("truth.tif"), label[None], gdal.GDT_Byte)
    write(path("s2.tif"), s2.reshape(-1, HEIGHT, WIDTH), gdal.GDT_Int16)
    write(path("s2_mask.tif"), masks, gdal.GDT_Byte)
    with open(path("s2_dates.txt"), "w", encoding="utf-8") as f:
        f.write("\n".join(d.isoformat() for d in days) + "\n")
    print("%s: %d dates of Sentinel-2 (%d %% under clouds), simulated"
          % (args.out, len(days), round(100 * masks.mean())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
