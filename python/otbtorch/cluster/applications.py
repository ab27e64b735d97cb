"""What the parameters of the applications are: files that are read, files that are written.

Images that an application writes are known from its own ``-help`` (``[pixel]``), for any
application of OTB. That a word names a file is told by the table below for those of this module;
of others, any word that is a file is one that is read.
"""

import dataclasses
import functools
import re
import subprocess

from ..launch import LaunchError, launcher
from . import ClusterError

SENSORS = ("", "2", "3", "4")


@dataclasses.dataclass(frozen=True)
class Files:
    """Keys of an application whose values are names of files.

    ``written`` has the extension of each; ``either``: written where the name is a tile's own, else
    read. ``grid``: keys of the images whose grid is that of the maps. ``windows`` says how one
    image can be cut: ``box`` (each part has the pixels of the whole), ``scene`` (what is written
    is learnt from all of it), or why not.
    """

    images: tuple = ()
    read: tuple = ()
    written: dict = dataclasses.field(default_factory=dict)
    either: tuple = ()
    grid: tuple = ()
    windows: str = "it is not known to give the same pixels by parts"


OBJECTS = {"objects": ".gpkg"}
TABLE = {
    "SiameseCD": Files(
        images=("in1", "in2", "mask"),
        read=("model", "contract"),
        written=OBJECTS,
        grid=("in1",),
        windows="box",
    ),
    "TimeSeriesClassify": Files(
        images=("in", "static", "mask", "il", "il2", "il3", "il4")
        + tuple(f"maskl{s}" for s in SENSORS),
        read=("model", "contract", "imstat") + tuple(f"dates{s}" for s in SENSORS),
        grid=("in", "il"),
        windows="box",
    ),
    "ChangeLikelihood": Files(
        images=("in1", "in2", "il", "maskl", "mask"),
        read=("model", "contract", "dates", "calibration"),
        written=dict(OBJECTS, calibrate=".json", fit=".json"),
        either=("fit",),
        grid=("in1", "il"),
        windows="scene",
    ),
    "ChangeEvaluation": Files(
        images=("in", "in2", "inchange", "refchange", "mask"),
        read=("ref", "ref2", "labelled"),
        written={"out": ".json", "csv": ".csv", "errors": ".tif", "points": ".gpkg"},
        windows="its figures are those of whole maps",
    ),
}
# Of every application: its parameters as a file, which otbtorch report reads.
EVERY = {"outxml": ".xml"}
# No pixel depends on them.
NEUTRAL = ("ram", "progress")

_LINE = re.compile(r"^(?:MISSING)?\s*-(\S+)\s+<([^>]+)>\s(\[pixel\])?")


@dataclasses.dataclass(frozen=True)
class Application:
    """An application as it is installed: its keys, and which of them name files."""

    name: str
    keys: frozenset
    images_written: frozenset
    files: Files

    def written(self, key):
        """The extension of a file that is written; None where the key names none."""
        if key in self.images_written:
            return ".tif"
        return self.files.written.get(key) or EVERY.get(key)

    def is_map(self, key):
        return self.written(key) == ".tif"


def parse_help(text):
    """``(keys, keys of images that are written)`` from what ``-help`` prints."""
    found = [m.groups() for m in map(_LINE.match, text.splitlines()) if m]
    return frozenset(k for k, _, _ in found), frozenset(k for k, _, pixel in found if pixel)


@functools.lru_cache(maxsize=None)
def application(name):
    """The application of that name. Raises ClusterError where there is none."""
    try:
        command = [launcher(name), "-help"]
    except LaunchError as error:
        raise ClusterError(f"{error}. Known here: {', '.join(TABLE)}") from error
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    keys, images = parse_help(done.stdout.decode("utf-8", "replace"))
    if not keys:
        raise ClusterError(f"{command[0]} -help lists no parameters: is the application installed?")
    return Application(name, keys | frozenset(EVERY), images, TABLE.get(name, Files()))
