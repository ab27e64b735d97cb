"""What iota2 makes of the files of its classification step, in NumPy."""

import numpy as np


def mosaic(tiles, shape):
    """Tiles on one image: the first that says something stays.

    ``tiles``: (first column, array (bands, h, w)) each; 0 says nothing.
    """
    whole = np.zeros(shape, tiles[0][1].dtype)
    for first, array in tiles:
        part = whole[:, :, first : first + array.shape[2]]
        part[...] = np.where(part != 0, part, array)
    return whole
