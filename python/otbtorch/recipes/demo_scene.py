"""Make the second date of the demonstration pair, with exactly known changes.

``/usr/bin/python3 -m otbtorch.recipes.demo_scene --out demo`` reads a real Landsat 7 scene (date 1)
and writes, on the same grid:

``date2.tif``
    six bands, uint8. **It is simulated**: no second acquisition is involved. No-data is 0.
``changes.tif``
    uint8, 1 where the content of the pixel was replaced, 0 elsewhere. It is exact by construction.

What is simulated, in this order:

1. *Changes*: parcels, polygons, strips, clusters of buildings, clear-cuts and water bodies of 3 x 3
   to 40 x 40 pixels. Their content is either cut out elsewhere in the scene (flipped and turned) or
   re-rendered from pixels of one land cover of the scene, sometimes mixed with what was there. A
   pixel is replaced only where the new content is spectrally far from the old one
   (``MIN_DISTANCE``, in standard deviations of the bands), so every pixel marked as change did
   change, and no other pixel did.
2. *Nuisance*, over the whole image, that a detector has to ignore: the vigour of vegetation (more
   or less near infrared, not the same everywhere), thin haze, soft shadows, a gain and an offset
   for each band, a smooth illumination field, a sub-pixel shift (about 0.2 pixel), a slight blur,
   sensor noise and the rounding to 8 bits.
3. A wedge of *no-data* in the south-west corner, as at the edge of a swath.

What it is not: there are no thick clouds, no sharp shadows, no floods, no changes of crops, no
relief displacement, and no change too faint to be told from noise. Scores on this pair say that the
chain works, not how well a model would do on two real acquisitions.

The same functions, with other seeds, make the training pairs of ``otbtorch.recipes.train_demo``.
"""

import argparse
import json
import os
import sys

import numpy as np

#: The seed of the shipped demonstration. Training and calibration never use it.
DEMO_SEED = 20260
#: A pixel counts as changed from this RMS distance on, in standard deviations of the bands.
MIN_DISTANCE = 0.5
#: At least this share of an object has to change, else another content is drawn.
MIN_CHANGED = 0.85
#: Objects for 10 000 pixels.
DENSITY = 8.0

BANDS = ("B1", "B2", "B3", "B4", "B5", "B7")


# --------------------------------------------------------------------------------------------------
# Land covers of the scene

def land_covers(image):
    """Boolean maps of coarse land covers, from the bands B1 B2 B3 B4 B5 B7 of an (6, H, W) image.

    They only have to be good enough to draw plausible spectra from.
    """
    _, _, red, nir, swir, _ = image.astype(np.float32)
    ndvi = (nir - red) / np.maximum(nir + red, 1)
    water = swir < 30
    vegetation = (ndvi > 0.15) & ~water
    visible = image[:3].mean(axis=0)
    bright = (ndvi < 0.0) & (visible > np.percentile(visible, 85)) & ~water
    built = (ndvi < 0.0) & ~water & ~bright
    return {"water": water, "vegetation": vegetation, "bare": bright, "built": built}


class Palette:
    """Draws the content of new objects from the pixels of one image."""

    def __init__(self, image):
        self.image = image.astype(np.float32)
        self.std = self.image.reshape(len(image), -1).std(axis=1)[:, None]
        covers = land_covers(image)
        self.water = covers["water"]
        flat = self.image.reshape(len(image), -1)
        # Too few pixels make no land cover: a crop of the scene may hold no water at all.
        self.pixels = {name: flat[:, m.ravel()] for name, m in covers.items() if m.sum() >= 100}

    def rendered(self, rng, cover, mask):
        """Content from one land cover: pixels like a randomly chosen one, slightly smoothed."""
        if cover not in self.pixels:
            cover = "built"
        pool = self.pixels[cover]
        pool = pool[:, rng.integers(0, pool.shape[1], 2000)]
        distance = (((pool - pool[:, :1]) / self.std) ** 2).sum(axis=0)
        alike = pool[:, np.argsort(distance, kind="stable")[:80]]
        out = alike[:, rng.integers(0, alike.shape[1], mask.shape)]
        # Neighbours on one surface resemble each other (the sensor's point spread function).
        return 0.6 * blur(out, 0.2) + 0.4 * out

    def transplanted(self, rng, mask):
        """Content cut out elsewhere in the image, flipped and turned."""
        height, width = mask.shape
        turn = bool(rng.integers(2))
        h, w = (width, height) if turn else (height, width)
        for _ in range(4):
            y = int(rng.integers(0, self.image.shape[1] - h + 1))
            x = int(rng.integers(0, self.image.shape[2] - w + 1))
            # The sea differs from everything, so it would win the test below too often.
            if self.water[y:y + h, x:x + w].mean() < 0.5:
                break
        out = self.image[:, y:y + h, x:x + w]
        if turn:
            out = out.transpose(0, 2, 1)
        if rng.integers(2):
            out = out[:, ::-1]
        if rng.integers(2):
            out = out[:, :, ::-1]
        return out

    def distance(self, a, b):
        """RMS over the bands of the difference, in standard deviations."""
        return np.sqrt((((a - b) / self.std[:, :, None]) ** 2).mean(axis=0))


# --------------------------------------------------------------------------------------------------
# Shapes

def _grid(height, width):
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return y - (height - 1) / 2, x - (width - 1) / 2


def rectangle(rng, height, width):
    """A rectangle, turned by any angle where it is large enough for that to be seen."""
    if min(height, width) < 8:
        return np.ones((height, width), bool)
    angle = rng.uniform(0, np.pi)
    y, x = _grid(height, width)
    c, s = np.cos(angle), np.sin(angle)
    u, v = c * x + s * y, -s * x + c * y
    return (np.abs(u) < 0.36 * width) & (np.abs(v) < 0.36 * height)


def blob(rng, height, width):
    """A lobed outline around the centre (clear-cuts, ponds)."""
    y, x = _grid(height, width)
    angle = np.arctan2(y, x)
    radius = np.full_like(angle, 0.75)
    for k in (2, 3, 5):
        radius += rng.uniform(0, 0.12) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    return np.hypot(2 * x / width, 2 * y / height) < radius


def polygon(rng, height, width):
    """A convex polygon: an ellipse cut by a few straight lines."""
    y, x = _grid(height, width)
    u, v = 2 * x / width, 2 * y / height
    mask = np.hypot(u, v) < 1.15
    for _ in range(int(rng.integers(3, 6))):
        angle = rng.uniform(0, 2 * np.pi)
        mask &= u * np.cos(angle) + v * np.sin(angle) < rng.uniform(0.55, 0.9)
    return mask


def draw_size(rng):
    """Height and width of an object, 3 to 40 pixels, small ones more often."""
    side = np.exp(rng.uniform(np.log(3), np.log(40), 2))
    mean = np.sqrt(side[0] * side[1])
    # Pulled towards a square: slivers are made on purpose (strips), not by accident.
    side = np.sqrt(side * mean)
    return tuple(int(v) for v in np.clip(np.rint(side), 3, 40))


def draw_object(rng, palette):
    """One object as a list of (top, left, mask, make_content), with offsets inside its own box."""
    kind = rng.choice(["transplant", "parcel", "parcels", "cluster", "clearcut", "water", "strip"],
                      p=[0.30, 0.20, 0.10, 0.12, 0.12, 0.08, 0.08])
    height, width = draw_size(rng)
    cover = str(rng.choice(["vegetation", "bare", "built", "water"], p=[0.3, 0.3, 0.3, 0.1]))

    def render(name):
        return lambda mask: palette.rendered(rng, name, mask)

    if kind == "transplant":
        shape = (rectangle, blob, polygon)[int(rng.integers(3))]
        return [(0, 0, shape(rng, height, width), lambda mask: palette.transplanted(rng, mask))]
    if kind == "parcel":
        shape = (rectangle, polygon)[int(rng.integers(2))]
        return [(0, 0, shape(rng, height, width), render(cover))]
    if kind == "clearcut":
        return [(0, 0, blob(rng, height, width), render("bare" if rng.integers(2) else "built"))]
    if kind == "water":
        return [(0, 0, blob(rng, max(height, 6), max(width, 6)), render("water"))]
    if kind == "strip":
        mask = np.ones((3, int(rng.integers(10, 41))), bool)
        return [(0, 0, mask if rng.integers(2) else mask.T, render(cover))]
    if kind == "parcels":
        # Side by side, each with its own cover.
        parts, left = [], 0
        height = max(height, 5)
        for _ in range(int(rng.integers(2, 5))):
            w = int(rng.integers(4, 11))
            part = str(rng.choice(["vegetation", "bare", "built"]))
            parts.append((0, left, np.ones((height, w), bool), render(part)))
            left += w
        return parts
    # A cluster of buildings on a loose lattice, 3 to 5 pixels each; the gaps do not change.
    parts = []
    for row in range(int(rng.integers(2, 4))):
        for column in range(int(rng.integers(2, 4))):
            h, w = (int(v) for v in rng.integers(3, 6, 2))
            top, left = row * 8 + int(rng.integers(0, 3)), column * 8 + int(rng.integers(0, 3))
            parts.append((top, left, np.ones((h, w), bool), render("bare")))
    return parts


# --------------------------------------------------------------------------------------------------
# Changes

def add_changes(image, rng, count=None, forbidden=None):
    """Replace the content of random objects.

    :param image: (6, H, W) array.
    :param count: number of objects, by default ``DENSITY`` for 10 000 pixels.
    :param forbidden: (H, W) boolean map of pixels that must stay as they are.
    :return: the changed image (float32) and the boolean map of the replaced pixels.
    """
    palette = Palette(image)
    out = image.astype(np.float32).copy()
    _, rows, columns = image.shape
    changed = np.zeros((rows, columns), bool)
    taken = np.zeros((rows, columns), bool) if forbidden is None else forbidden.copy()
    if count is None:
        count = int(round(DENSITY * rows * columns / 1e4))
    placed = tries = 0
    while placed < count and tries < 40 * count:
        tries += 1
        parts = draw_object(rng, palette)
        height = max(top + m.shape[0] for top, _, m, _ in parts)
        width = max(left + m.shape[1] for _, left, m, _ in parts)
        if height > rows or width > columns:
            continue
        y = int(rng.integers(0, rows - height + 1))
        x = int(rng.integers(0, columns - width + 1))
        if taken[y:y + height, x:x + width].any():
            continue
        # Most of the changes are on land; a few are land won from the sea.
        if palette.water[y:y + height, x:x + width].mean() > 0.5 and rng.uniform() > 0.1:
            continue
        done = False
        # Some changes are partial: thinned vegetation, half-built plots.
        strength = np.float32(1 if rng.uniform() < 0.6 else rng.uniform(0.5, 1))
        for top, left, mask, make in parts:
            window = np.s_[y + top:y + top + mask.shape[0], x + left:x + left + mask.shape[1]]
            old = palette.image[(slice(None),) + window]
            for _ in range(8):
                new = strength * make(mask) + (1 - strength) * old
                differs = mask & (palette.distance(new, old) >= MIN_DISTANCE)
                if differs.sum() >= MIN_CHANGED * mask.sum():
                    out[(slice(None),) + window] = np.where(differs, new, old)
                    changed[window] |= differs
                    done = True
                    break
        if done:
            # A margin, so that two objects do not merge into one.
            taken[max(0, y - 2):y + height + 2, max(0, x - 2):x + width + 2] = True
            placed += 1
    return out, changed


# --------------------------------------------------------------------------------------------------
# Nuisance

def _filter(image, taps, axis):
    """Filter along one axis with an odd number of taps, the border repeated."""
    radius = len(taps) // 2
    pad = [(0, 0)] * image.ndim
    pad[axis] = (radius, radius)
    padded = np.pad(image, pad, mode="edge")
    size = image.shape[axis]
    out = 0
    for i, tap in enumerate(taps):
        out = out + np.float32(tap) * padded.take(np.arange(i, i + size), axis=axis)
    return out


def blur(image, weight):
    """Three taps along rows and columns: ``weight`` from each neighbour."""
    for axis in (-2, -1):
        image = _filter(image, (weight, 1 - 2 * weight, weight), image.ndim + axis)
    return image


def shift(image, dy, dx):
    """Move the image by a fraction of a pixel (cubic convolution, -1 < dy, dx < 1)."""
    for axis, d in ((-2, dy), (-1, dx)):
        positions = np.arange(-2, 3) + d
        x = np.abs(positions)
        taps = np.where(x < 1, 1.5 * x ** 3 - 2.5 * x ** 2 + 1,
                        np.where(x < 2, -0.5 * x ** 3 + 2.5 * x ** 2 - 4 * x + 2, 0))
        image = _filter(image, taps / taps.sum(), image.ndim + axis)
    return image


def waves(rng, rows, columns, shortest, longest):
    """A smooth random field with values mostly in [-1, 1]; periods in pixels."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    field = np.zeros((rows, columns), np.float32)
    for _ in range(4):
        angle, period = rng.uniform(0, 2 * np.pi), rng.uniform(shortest, longest)
        phase = rng.uniform(0, 2 * np.pi)
        field += np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
    return field / 2


def draw_nuisance(rng, strength=1.0):
    """Draw the parameters of the differences that are not changes."""
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(0.15, 0.25) * strength
    return {
        "gain": (rng.uniform(1 - 0.10 * strength, 1 + 0.10 * strength)
                 * (1 + 0.03 * strength * rng.standard_normal(6))).round(4).tolist(),
        "vigour": round(float(rng.uniform(0.2, 0.45) * strength), 4),
        "haze_dn": round(float(rng.uniform(8, 18) * strength), 2),
        "shadow": round(float(rng.uniform(0.1, 0.35) * strength), 4),
        "offset": (3.0 * strength * rng.standard_normal(6)).round(2).tolist(),
        "illumination": round(float(rng.uniform(0.03, 0.07) * strength), 4),
        "shift_px": [round(float(radius * np.sin(angle)), 3),
                     round(float(radius * np.cos(angle)), 3)],
        "blur": round(float(rng.uniform(0.02, 0.08)), 4),
        "noise_dn": round(float(rng.uniform(1.5, 2.5) * strength), 3),
    }


def add_nuisance(image, rng, nuisance):
    """Apply the parameters of `draw_nuisance`: float32, neither rounded nor clipped."""
    _, rows, columns = image.shape
    image = image.astype(np.float32)
    # Vegetation that thrives reflects more near infrared and less red and shortwave infrared.
    red, nir = image[2], image[3]
    share = np.clip((nir - red) / np.maximum(nir + red, 1) / 0.4, 0, 1)
    share = share * nuisance["vigour"] * waves(rng, rows, columns, 80, 400)
    image = image * (1 + np.multiply.outer(np.float32([0, 0, -0.5, 1, -0.4, -0.5]), share))
    image = shift(image, *nuisance["shift_px"])
    image = blur(image, nuisance["blur"])
    field = 1 + nuisance["illumination"] * waves(rng, rows, columns, 200, 1000)
    # Shadows of thin clouds darken, haze brightens the short wavelengths most. Both come in soft
    # patches: the positive part of the waves only.
    field = field * (1 - nuisance["shadow"] * np.clip(waves(rng, rows, columns, 60, 250), 0, 1))
    haze = nuisance["haze_dn"] * np.clip(waves(rng, rows, columns, 60, 250), 0, 1)
    image = image + np.multiply.outer(np.float32([1, 0.8, 0.65, 0.35, 0.15, 0.1]), haze)
    gain = np.asarray(nuisance["gain"], np.float32)[:, None, None]
    offset = np.asarray(nuisance["offset"], np.float32)[:, None, None]
    noise = rng.standard_normal(image.shape).astype(np.float32) * nuisance["noise_dn"]
    return image * field * gain + offset + noise


def quantise(image):
    """Round to 8 bits. Valid pixels are never 0, which stands for no-data."""
    return np.clip(np.rint(image), 1, 255).astype(np.uint8)


def wedge(rows, columns, share=0.16):
    """The no-data corner (south-west): a triangle like the slanted edge of a swath."""
    y, x = np.mgrid[0:rows, 0:columns]
    return x < (y - rows * 0.55) * share / 0.45 * columns / rows


def simulate_pair(image, rng, strength=1.0, forbidden=None, count=None):
    """A second date for `image`: (date 2 as uint8, map of changes, nuisance parameters)."""
    changed_image, changed = add_changes(image, rng, count, forbidden)
    nuisance = draw_nuisance(rng, strength)
    return quantise(add_nuisance(changed_image, rng, nuisance)), changed, nuisance


# --------------------------------------------------------------------------------------------------
# Files

def read_image(path):
    """All the bands of a raster as an array (bands, rows, columns)."""
    from osgeo import gdal
    gdal.UseExceptions()
    return gdal.Open(path).ReadAsArray()


def write_like(path, array, template, nodata=None, descriptions=()):
    """Write a uint8 array (H, W) or (B, H, W) with the georeferencing of `template`."""
    from osgeo import gdal
    gdal.UseExceptions()
    source = gdal.Open(template)
    array = array[None] if array.ndim == 2 else array
    target = gdal.GetDriverByName("GTiff").Create(
        path, array.shape[2], array.shape[1], array.shape[0], gdal.GDT_Byte,
        ["COMPRESS=DEFLATE", "PREDICTOR=2", "ZLEVEL=9", "INTERLEAVE=BAND"])
    target.SetGeoTransform(source.GetGeoTransform())
    target.SetProjection(source.GetProjection())
    for i, band in enumerate(array, 1):
        target.GetRasterBand(i).WriteArray(band)
        if descriptions:
            target.GetRasterBand(i).SetDescription(descriptions[i - 1])
        if nodata is not None:
            target.GetRasterBand(i).SetNoDataValue(nodata)
    target.FlushCache()


def main(argv=None):
    parser = argparse.ArgumentParser(
        prog="otbtorch.recipes.demo_scene",
        description="Simulate the second date of the demo pair.")
    parser.add_argument("--out", required=True,
                        help="directory that receives date2.tif and changes.tif")
    parser.add_argument("--seed", type=int, default=DEMO_SEED, help="default: %(default)s")
    parser.add_argument("--date1", default="data/scene/date1.tif", help="default: %(default)s")
    args = parser.parse_args(argv)

    image = read_image(args.date1)
    if image.ndim != 3 or len(image) != len(BANDS):
        parser.error("%s: six bands expected (%s)" % (args.date1, " ".join(BANDS)))
    nodata = wedge(*image.shape[1:])
    date2, changed, nuisance = simulate_pair(image, np.random.default_rng(args.seed),
                                             forbidden=nodata)
    date2[:, nodata] = 0

    os.makedirs(args.out, exist_ok=True)
    write_like(os.path.join(args.out, "date2.tif"), date2, args.date1, 0, BANDS)
    write_like(os.path.join(args.out, "changes.tif"), changed.astype(np.uint8), args.date1)
    print("seed %d: %d changed pixels (%.2f %% of the valid ones), %.2f %% no-data"
          % (args.seed, changed.sum(), 100 * changed.sum() / (~nodata).sum(), 100 * nodata.mean()))
    print("nuisance: " + json.dumps(nuisance))
    return 0


if __name__ == "__main__":
    sys.exit(main())
