"""Turn a WorldCereal patch (NetCDF) into image stacks that OTB reads.

The files hold one variable a band, with axes time, y and x. GDAL's netCDF driver reads them, but
through its classic interface it gives no geotransform here: this reads the coordinates and writes
GeoTIFF stacks in date-major order (all bands of the first date, then of the second ...) with a
text file of dates beside each.

    s2_10m.tif  s2_dates.txt   B02 B03 B04 B08, digital numbers (reflectance x 10000)
    s2_20m.tif                 B05 B06 B07 B8A B11 B12, same dates
    s2_scl.tif                 scene classification, one band a date, 20 m
    s1_20m.tif  s1_dates.txt   VV VH, decibels
    landcover.tif croptype.tif reference codes
"""

import argparse
import datetime
import glob
import os
import re
import sys

import numpy as np

from .. import series

S2_10M = ("B02", "B03", "B04", "B08")
S2_20M = ("B05", "B06", "B07", "B8A", "B11", "B12")
S1 = ("VV", "VH")


class Cube:
    """One NetCDF file: variables as arrays in the order of the coordinates, north up."""

    def __init__(self, path):
        from osgeo import gdal

        gdal.UseExceptions()
        self.path = path
        # The multidimensional interface gives the coordinates, and rows in the order of the file.
        self.root = gdal.OpenEx(path, gdal.OF_MULTIDIM_RASTER).GetRootGroup()
        x, y = (np.asarray(self.root.OpenMDArray(n).ReadAsArray(), float) for n in "xy")
        self.flip_x, self.flip_y = x[-1] < x[0], y[-1] > y[0]
        x, y = np.sort(x), np.sort(y)[::-1]
        for axis in (x, -y):
            step = np.diff(axis)
            if len(step) == 0 or not np.allclose(step, step[0]):
                raise ValueError("%s: the pixels are not evenly spaced" % path)
        dx, dy = x[1] - x[0], y[1] - y[0]
        # Coordinates are those of the centres of pixels.
        self.geotransform = (x[0] - dx / 2, dx, 0.0, y[0] - dy / 2, 0.0, dy)
        self.epsg = int(self._attribute("epsg"))

    def _attribute(self, name):
        return self.root.GetAttribute(name).ReadAsString()

    def read(self, name):
        """A variable as it is stored (no scale factor), ``[T, H, W]`` or ``[H, W]``."""
        array = np.asarray(self.root.OpenMDArray(name).ReadAsArray())
        array = array[..., ::-1] if self.flip_x else array
        return array[..., ::-1, :] if self.flip_y else array

    def scale(self, name):
        return self.root.OpenMDArray(name).GetScale() or 1.0

    def dates(self):
        """Dates of acquisition (UTC)."""
        time = self.root.OpenMDArray("timestamp")
        match = re.match(r"(seconds|days) since (\d+-\d+-\d+)[ T](\d+):(\d+):(\d+)", time.GetUnit())
        if not match:
            raise ValueError("%s: unknown unit of time %r" % (self.path, time.GetUnit()))
        origin = datetime.datetime.combine(
            series.parse_date(match.group(2)), datetime.time(*map(int, match.groups()[2:]))
        )
        return [
            (origin + datetime.timedelta(**{match.group(1): int(v)})).date()
            for v in time.ReadAsArray()
        ]


def _write(path, bands, names, cube, nodata=None):
    from osgeo import gdal, osr

    kinds = {"uint8": gdal.GDT_Byte, "uint16": gdal.GDT_UInt16, "float32": gdal.GDT_Float32}
    count, height, width = bands.shape
    out = gdal.GetDriverByName("GTiff").Create(
        path, width, height, count, kinds[bands.dtype.name],
        ["COMPRESS=DEFLATE", "INTERLEAVE=BAND", "TILED=NO"])
    system = osr.SpatialReference()
    system.ImportFromEPSG(cube.epsg)
    out.SetProjection(system.ExportToWkt())
    out.SetGeoTransform(cube.geotransform)
    for i, (band, name) in enumerate(zip(bands, names), 1):
        raster = out.GetRasterBand(i)
        raster.WriteArray(band)
        raster.SetDescription(name)
        if nodata is not None:
            raster.SetNoDataValue(nodata)
    out.FlushCache()


def _stack(path, cube, variables, dates, keep, convert=None, nodata=None):
    bands = np.stack([cube.read(v)[keep] for v in variables], 1)
    if convert is not None:
        bands = convert(bands)
    names = ["%s_%s" % (v, d.strftime("%Y%m%d")) for d in dates for v in variables]
    _write(path, bands.reshape((-1,) + bands.shape[2:]), names, cube, nodata)
    return bands.shape


def _find(folder, prefix):
    found = sorted(glob.glob(os.path.join(folder, prefix + "*.nc")))
    if len(found) != 1:
        raise FileNotFoundError("%s: one file %s*.nc is expected, there are %d"
                                % (folder, prefix, len(found)))
    return found[0]


def convert(folder, out):
    """Convert a patch; returns a list of lines that say what was written."""
    os.makedirs(out, exist_ok=True)
    ten, twenty = Cube(_find(folder, "S2_L2A_10m")), Cube(_find(folder, "S2_L2A_20m"))
    lines = []

    def target(name):
        return os.path.join(out, name)

    def say(name, shape, dates):
        lines.append("%-14s %d dates x %d bands, %d x %d, %s to %s"
                     % ((name,) + tuple(shape) + (dates[0], dates[-1])))

    # The two files come from the same acquisitions, but one may lack a date.
    dates10, dates20 = ten.dates(), twenty.dates()
    common = sorted(set(dates10) & set(dates20))
    if len(common) < max(len(dates10), len(dates20)):
        lines.append("Sentinel-2: %d and %d dates at 10 m and 20 m, %d in common"
                     % (len(dates10), len(dates20), len(common)))
    keep10, keep20 = ([d.index(x) for x in common] for d in (dates10, dates20))
    series.write_dates(target("s2_dates.txt"), common)
    say("s2_10m.tif", _stack(target("s2_10m.tif"), ten, S2_10M, common, keep10, nodata=0), common)
    say("s2_20m.tif", _stack(target("s2_20m.tif"), twenty, S2_20M, common, keep20, nodata=0),
        common)
    say("s2_scl.tif", _stack(target("s2_scl.tif"), twenty, ["SCL"], common, keep20), common)

    radar = Cube(_find(folder, "S1_GRD"))
    dates = radar.dates()
    factor = radar.scale("VV")

    def decibels(stored):
        return np.where(stored == 0, np.nan, stored * factor).astype(np.float32)

    series.write_dates(target("s1_dates.txt"), dates)
    say("s1_20m.tif",
        _stack(target("s1_20m.tif"), radar, S1, dates, slice(None), decibels), dates)

    labels = Cube(_find(folder, "OUTPUT"))
    for name, variable in (("landcover", "LC"), ("croptype", "CT")):
        codes = labels.read(variable).astype(np.uint16)
        _write(target(name + ".tif"), codes[None], [name], labels, 0)
        found = ", ".join("%d (%d px)" % v for v in zip(*np.unique(codes, return_counts=True)))
        lines.append("%-14s codes %s" % (name + ".tif", found))
    return lines


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="python3 -m otbtorch.recipes.worldcereal",
        description="Turn a WorldCereal patch (NetCDF) into date-major GeoTIFF stacks.")
    parser.add_argument("folder", help="folder of the NetCDF files")
    parser.add_argument("out", help="folder to write to")
    args = parser.parse_args(argv)
    print("\n".join(convert(args.folder, args.out)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
