"""The results of ``otbcli_ChangeEvaluation``, of one run or of several in different modes."""

import json
import os

from . import complaint

FORMAT, VERSION = "otbtorch-evaluation", 1


class Evaluation:
    """Groups of figures: the first file that has a group gives it.

    ``groups`` holds what ``pooled.metrics`` does (binary, score, calibration, semantic, objects); ``pairs`` those
    of the pairs, of the first file with more than one; ``areas`` the estimates from a sample.
    """

    def __init__(self, paths):
        self.groups, self.pairs, self.areas, self.pixels, self.settings, self.software = {}, [], None, None, [], {}
        self.names, self._errors, self.blocks = [], [], None
        self.threshold = None  # {"value", "decision", "origin"} of a single pair of scores
        for path in paths:
            data = _read(path)
            self.settings.append((path, data.get("settings", {})))
            self.software = self.software or data.get("software", {})
            pooled, pairs = data.get("pooled") or {}, data.get("pairs") or []
            for name, group in (pooled.get("metrics") or {}).items():
                self.groups.setdefault(name, group)
            if self.pixels is None and pooled.get("pixels"):
                self.pixels, self.blocks = pooled["pixels"], pooled.get("blocks")
                self.blocks = self.blocks or (pairs[0].get("blocks") if pairs else None)
            self.names = self.names or [p.get("name", "") for p in pairs]
            self._errors = self._errors or [(path, (p.get("files") or {}).get("errors")) for p in pairs]
            if len(pairs) > 1 and not self.pairs:
                self.pairs = pairs
            if self.threshold is None and len(pairs) == 1:
                self.threshold = ((pairs[0].get("metrics") or {}).get("binary") or {}).get("threshold")
            self.areas = self.areas or data.get("areas")

    def errors(self):
        """The map of errors that a single pair names, if it is there: as named, or beside the JSON file."""
        if len(self._errors) != 1 or not self._errors[0][1]:
            return None
        path, name = self._errors[0]
        for there in (name, os.path.join(os.path.dirname(path), os.path.basename(name))):
            if os.path.exists(there):
                return there
        return None

    def __getattr__(self, name):
        if name in ("binary", "score", "calibration", "semantic", "objects"):
            return self.groups.get(name)
        raise AttributeError(name)


def value(group, name):
    """A figure, or None where it is undefined or absent."""
    return ((group or {}).get("values") or {}).get(name)


def interval(group, name):
    """(low, high), or None."""
    found = ((group or {}).get("intervals") or {}).get(name)
    return tuple(found) if found and None not in found else None


def figures(group, names=None):
    """[(name, value, interval)] in the order of the file, or of `names`."""
    values = (group or {}).get("values") or {}
    return [(n, values.get(n), interval(group, n)) for n in names or values if n in values]


def _read(path):
    try:
        with open(path, encoding="utf-8") as stream:
            data = json.load(stream)
    except OSError as error:
        raise complaint(
            "evaluation", '"%s", which cannot be read (%s)' % (path, error.strerror), "the file that ChangeEvaluation's -out wrote"
        ) from error
    except ValueError as error:
        raise complaint(
            "evaluation (%s)" % path, "that it is no JSON (%s)" % error, "the file that ChangeEvaluation's -out wrote"
        ) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise complaint(
            "evaluation (%s)" % path,
            "the format %r" % (data.get("format") if isinstance(data, dict) else type(data).__name__),
            FORMAT,
            "Give the file that ChangeEvaluation's -out wrote.",
        )
    if data.get("version") != VERSION:
        raise complaint(
            "evaluation (%s)" % path,
            "version %r of its layout" % data.get("version"),
            "version %d" % VERSION,
            "It was written by another version of OTBTorch.",
        )
    return data
