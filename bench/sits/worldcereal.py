"""Land cover and crops on one WorldCereal patch, from its NetCDF files to the maps.

    python3 bench/sits/worldcereal.py ../shared/data/worldcereal_patch_2018

Converts the files, trains the networks of ``otbtorch.recipes.train_sits_default`` with three seeds,
each on its own division into blocks, exports them, classifies the patch with
``otbcli_TimeSeriesClassify`` and compares the maps with the labels on the blocks left out. OTB's
Random Forest on the gap-filled series stands beside. Where the application is absent (or with
--eager) PyTorch makes the maps, and the output says so.
"""

import argparse
import os
import sys
import tempfile
import time

import common
from otbtorch import train_sits as ts
from otbtorch.recipes import train_sits_default as default
from otbtorch.recipes import worldcereal


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", help="NetCDF files of the patch")
    parser.add_argument("--seeds", type=int, default=3, choices=(1, 2, 3))
    parser.add_argument("--eager", action="store_true", help="make the maps with PyTorch")
    args = parser.parse_args(argv)

    import torch

    torch.set_num_threads(1)
    start = time.time()
    through = not args.eager and common.application()[0] is not None
    names = [c[1] for c in default.CLASSES]
    different = []
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(worldcereal.convert(args.folder, folder)))
        samples, rows, columns = default.load(folder)

        def path(name):
            return os.path.join(folder, name)

        def by_application(result, seed):
            model = path("model.pt")
            ts.export(result["net"], default.declare("bench", result), model)
            inputs = [(path("s2_10m.tif"), path("s2_dates.txt"))]
            if len(result["sensors"]) == 2:
                inputs.append((path("s1_20m.tif"), path("s1_dates.txt")))
            masks = [(1, path("s2_scl.tif"), "scl")]
            labels = common.classify(model, inputs, path("map.tif"), masks)
            test = default.parts(seed, labels.shape)[rows, columns] == 2
            said = labels[rows, columns][test].astype(int) - 1
            figures = ts.Figures.of(samples.labels[test] - 1, said, len(names))
            different.append(int(abs(figures.matrix - result["figures"].matrix).sum() // 2))
            return figures

        table = default.compare(samples, rows, columns, args.seeds,
                                lambda text: print(text, flush=True),
                                by_application if through else None)
    print("\nmaps by %s" % ("the application" if through else "PyTorch"))
    if through:
        print("test pixels that the confusion matrices count otherwise than PyTorch's, by map: %s"
              % ", ".join(map(str, different)))
    print("\n" + ts.table(table, names))
    print("\n%.0f s in all" % (time.time() - start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
