"""Files of iota2's classification step: names, windows of chunks.

T is a tile, M a model (a region, "2", or a part of one, "2f1"), S a seed; the names are those of
iota2's own step (Classification/ImageClassifier.py of 2020).
"""

import dataclasses
import pathlib

from . import complaint


@dataclasses.dataclass(frozen=True)
class Maps:
    """The files of one tile, model and seed; of one chunk of it where ``chunk`` is a number."""

    output_path: str
    tile: str
    model: str
    seed: int
    chunk: int = None

    @property
    def folder(self):
        return pathlib.Path(self.output_path) / "classif"

    @property
    def task(self):
        part = "" if self.chunk is None else f"_SUBREGION_{self.chunk}"
        return f"{self.tile}_model_{self.model}_seed_{self.seed}{part}"

    @property
    def labels(self):
        return self.folder / f"Classif_{self.task}.tif"

    @property
    def confidence(self):
        part = "" if self.chunk is None else f"_SUBREGION_{self.chunk}"
        return self.folder / f"{self.tile}_model_{self.model}_confidence_seed_{self.seed}{part}.tif"

    @property
    def probabilities(self):
        return self.folder / f"PROBAMAP_{self.task}.tif"

    @property
    def mask(self):
        """Where the region of the model lies: the parts of a region share it."""
        region = self.model.split("f")[0]
        return self.folder / "MASK" / f"MASK_region_{region}_{self.tile}.tif"

    def files(self, probability):
        """Labels last: a task is finished when they are there."""
        return ([self.probabilities] if probability else []) + [self.confidence, self.labels]

    def whole(self):
        return dataclasses.replace(self, chunk=None)


def window(rows, chunks, chunk):
    """(first row, number of rows) of a chunk; all chunks together are all rows, once.

    :raises Iota2Error: more chunks than rows, or a chunk that is none of them
    """
    if not 1 <= chunks <= rows:
        raise complaint("chunks", chunks, f"1 to {rows}, the number of rows")
    if not 0 <= chunk < chunks:
        raise complaint("chunk", chunk, f"0 to {chunks - 1}")
    first, end = chunk * rows // chunks, (chunk + 1) * rows // chunks
    return first, end - first


def label_type(labels):
    """OTB's name of the smallest type that holds the labels of a run; 0 is no-data."""
    return "uint8" if max(labels) <= 255 else "uint16"
