"""``otbtorch-run``: an application over many tiles, or over the windows of one huge image.

========== =========================================================================
jobs       from a command line with placeholders to jobs, and what identifies each
stac       tiles from STAC items
execute    one job: run, check, rename, record
schedule   many jobs on dask.distributed, or one after another
assemble   mosaics of tiles, one GeoTIFF or COG of windows
arrays     job arrays of SLURM and PBS, for sites without dask
command    the command line
========== =========================================================================
"""


class ClusterError(Exception):
    """What was asked for cannot be done; the message says what to do about it."""
