"""The steps around the classification: what they ask of the graph, and the mosaic's rules on files."""

import json
import pathlib

import numpy as np
from osgeo import gdal

from .IOTA2Step import Step


def distribution(cfg):
    """(tiles, {model: {"tiles": ...}}) of a configuration."""
    with open(cfg, encoding="utf-8") as stream:
        run = json.load(stream)["run"]
    return run["tiles"], {m: {"tiles": t, "nb_sub_models": None} for m, t in run["regions"].items()}


class Theirs(Step):
    def __init__(self, cfg, cfg_resources_file, workingDirectory=None):
        super().__init__(cfg, cfg_resources_file, type(self).__name__)
        with open(cfg, encoding="utf-8") as stream:
            self.settings = json.load(stream)["chain"]
        self.add()

    def task(self, name, function, group, sub_group, after, **arguments):
        task = self.i2_task(name, self.log_step_dir, "local", {"f": function, **arguments}, self.resources)
        self.add_task_to_i2_processing_graph(task, group, sub_group, after)

    @classmethod
    def step_description(cls):
        return cls.__name__


def learn(model_file):
    """Stands for learning: a model lies where it was put, under another name."""
    source = pathlib.Path(str(model_file) + ".untrained")
    if source.exists():
        source.rename(model_file)


class learnModel(Theirs):
    def add(self):
        for model in self.spatial_models_distribution:
            for seed in range(self.settings["runs"]):
                name = f"model_{model}_seed_{seed}"
                file = str(pathlib.Path(self.settings["outputPath"]) / "model" / f"{name}.pt")
                self.task(f"learn_{name}", learn, "region_tasks", f"{name}_usually", {}, model_file=file)


class classification(Theirs):
    def add(self):
        raise AssertionError("iota2's own classification is replaced")


class ScikitClassificationsMerge(classification):
    pass


def mosaic_files(output_path, runs):
    """final/*_Seed_S.tif of what lies in classif, found by name as iota2 finds it."""
    root = pathlib.Path(output_path)
    (root / "final").mkdir(exist_ok=True)
    for seed in range(runs):
        _mosaic(sorted((root / "classif").glob(f"Classif_*_seed_{seed}.tif")), root / "final" / f"Classif_Seed_{seed}.tif")
        _mosaic(
            sorted((root / "classif").glob(f"*_confidence_seed_{seed}.tif")), root / "final" / f"Confidence_Seed_{seed}.tif",
            lambda a: np.round(100 * a), gdal.GDT_Byte,
        )  # fmt: skip
        _mosaic(sorted((root / "classif").glob(f"PROBAMAP_*_seed_{seed}.tif")), root / "final" / f"ProbabilityMap_seed_{seed}.tif")


def _mosaic(files, target, change=None, kind=None):
    """One image over all files; of several values of a pixel the first that is not 0 stays."""
    if not files:
        return
    images = [gdal.Open(str(f)) for f in files]
    boxes = [(i.GetGeoTransform(), i.RasterXSize, i.RasterYSize) for i in images]
    left, top = min(t[0] for t, _, _ in boxes), max(t[3] for t, _, _ in boxes)
    size = boxes[0][0][1]
    width = round((max(t[0] + size * w for t, w, _ in boxes) - left) / size)
    height = round((top - min(t[3] - size * h for t, _, h in boxes)) / size)
    whole = None
    for image, (t, w, h) in zip(images, boxes):
        array = image.ReadAsArray().reshape(-1, h, w)
        if whole is None:
            whole = np.zeros((len(array), height, width), array.dtype)
        x, y = round((t[0] - left) / size), round((top - t[3]) / size)
        part = whole[:, y : y + h, x : x + w]
        part[...] = np.where(part != 0, part, array)
    kind = kind or images[0].GetRasterBand(1).DataType
    out = gdal.GetDriverByName("GTiff").Create(str(target), width, height, len(whole), kind)
    out.SetGeoTransform((left, size, 0, top, 0, -size))
    out.WriteArray(change(whole) if change else whole)
    out.FlushCache()


class mosaic(Theirs):
    def add(self):
        after = [
            f"{tile}_{model}_{seed}_usually"
            for model, meta in self.spatial_models_distribution_no_sub_splits.items()
            for seed in range(self.settings["runs"])
            for tile in meta["tiles"]
        ]
        self.task(
            "mosaic", mosaic_files, "mosaic", "mosaic", {"tile_tasks_model_mode": after},
            output_path=self.settings["outputPath"], runs=self.settings["runs"],
        )  # fmt: skip
