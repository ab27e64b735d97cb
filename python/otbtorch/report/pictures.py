"""Arrays as pictures inside the page."""

import base64
import io
import math

import numpy as np
from PIL import Image, ImageDraw

from .rasters import rgb

NO_DATA = "#D3D3D3"
#: Where change was found, missed, or said in vain: told apart by colour-blind readers and in grey print.
OUTLINE = "#D55E00"


def uri(pixels, photo=False):
    """A data URI of (rows, columns, 3) in 0..255: JPEG of images, PNG of maps (whose colours must stay as they are)."""
    image = Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
    buffer = io.BytesIO()
    if photo:
        image.save(buffer, "JPEG", quality=88, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    few = image.getcolors(256)
    if few:
        # With a palette of the very colours that are there.
        codes = np.asarray(image, np.uint32) @ np.array([65536, 256, 1], np.uint32)
        known, places = np.unique(codes, return_inverse=True)
        image = Image.fromarray(places.reshape(codes.shape).astype(np.uint8), "P")
        image.putpalette(np.stack([known >> 16, known >> 8 & 255, known & 255], axis=1).astype(np.uint8).tobytes())
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


class Stretch:
    """From 2 to 98 % of what several pictures show: one for all of them, so that dates compare."""

    def __init__(self, pictures):
        bands = len(pictures[0])
        pooled = [np.concatenate([p[b].compressed() for p in pictures]) for b in range(bands)]
        self.low = np.array([np.percentile(v, 2) if v.size else 0 for v in pooled])
        self.high = np.array([np.percentile(v, 98) if v.size else 1 for v in pooled])

    def __call__(self, values):
        """(bands, rows, columns) masked -> (rows, columns, 3) in 0..255."""
        scaled = (values.filled(0).transpose(1, 2, 0) - self.low) / np.maximum(self.high - self.low, 1e-9)
        out = np.clip(scaled * 255, 0, 255)
        if out.shape[2] == 1:
            out = out.repeat(3, axis=2)
        out[np.ma.getmaskarray(values).all(axis=0)] = rgb(NO_DATA)
        return out.astype(np.uint8)


def pale(picture):
    """An image that steps back behind what is drawn on it."""
    grey = picture.mean(axis=2, keepdims=True)
    return np.repeat(185 + 0.27 * grey, 3, axis=2)


def classes(values, valid, legend, below=None, k=1):
    """A map of classes in its colours, k x k pixels to one: each cell is the mean of their colours, so that small objects fade and
    do not vanish. Classes that are not drawn show `below` ((rows, columns, 3), else white)."""
    table = {e.value: rgb(e.colour) for e in legend if e.shown}
    known, places = np.unique(values, return_inverse=True)
    places = places.reshape(values.shape)
    colours = np.array([table.get(int(v), (255, 255, 255)) for v in known], np.float32).reshape(-1, 3)
    drawn = np.array([int(v) in table for v in known], bool)
    picture, cover = colours[places], (drawn[places] & valid)
    none = ~valid
    rows, columns = values.shape[0] // k, values.shape[1] // k
    mean = lambda a: a.reshape(rows, k, columns, k, -1).mean(axis=(1, 3))  # noqa: E731
    share = mean(cover[..., None].astype(np.float32))
    blank = mean(none[..., None].astype(np.float32))
    ground = np.full((rows, columns, 3), 255.0) if below is None else below.astype(np.float32)
    out = mean(picture * cover[..., None]) + (1 - share - blank) * ground + blank * np.array(rgb(NO_DATA), np.float32)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def ramp(values, colours, low, high):
    """A score as colours of a matplotlib ramp: (rows, columns) masked -> (rows, columns, 3)."""
    import matplotlib

    scaled = np.clip((values.filled(low) - low) / max(high - low, 1e-9), 0, 1)
    out = (np.asarray(matplotlib.colormaps[colours](scaled))[..., :3] * 255).astype(np.uint8)
    out[np.ma.getmaskarray(values)] = rgb(NO_DATA)
    return out


def enlarged(pixels, side):
    """A small picture with every pixel a square, about `side` wide."""
    k = max(1, round(side / max(pixels.shape[:2])))
    return pixels.repeat(k, axis=0).repeat(k, axis=1)


def outlined(pixels, window, lines, raster, colour=OUTLINE):
    """Rings (in map coordinates) drawn on a picture of a window."""
    image = Image.fromarray(np.ascontiguousarray(pixels, np.uint8))
    draw = ImageDraw.Draw(image)
    across, down = image.width / window.width, image.height / window.height
    for ring in lines:
        points = [raster.to_pixel(x, y) for x, y in ring]
        points = [((c - window.x) * across, (r - window.y) * down) for c, r in points]
        draw.line(points + points[:1], fill=(255, 255, 255), width=5, joint="curve")
    for ring in lines:
        points = [raster.to_pixel(x, y) for x, y in ring]
        points = [((c - window.x) * across, (r - window.y) * down) for c, r in points]
        draw.line(points + points[:1], fill=rgb(colour), width=2, joint="curve")
    return np.asarray(image)


def scale_bar(pixels, pixel_m):
    """(share of the width, length in metres or pixels) of a bar of a round length, at most a quarter of a picture."""
    goal = 0.25 * pixels * (pixel_m or 1)
    unit = 10.0 ** math.floor(math.log10(goal))
    length = unit * max(k for k in (1, 2, 5) if k * unit <= goal)
    return length / (pixel_m or 1) / pixels, length
