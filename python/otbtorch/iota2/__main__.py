"""Classifies what iota2 has prepared, without iota2: ``python3 -m otbtorch.iota2 --output-path RUN``.

Models, masks of regions and stacks are looked for in the run's folder; the maps are those that the
step writes, so that iota2 goes on from its mosaic. Exit codes: 0, 1 a task failed, 2 nothing to do
or parameters that are not right.
"""

import argparse
import concurrent.futures
import pathlib
import re
import sys

from . import Iota2Error, complaint
from . import parameters as parameter_file
from .steps import Chain, classification_tasks, merge_tasks


def discover(output_path, parameters):
    """({model: tiles}, number of seeds) of the models and masks of a run.

    A pattern without ``{model}`` is the model of every region that has masks; one without
    ``{seed}`` is seed 0.

    :raises Iota2Error: no model, a seed that is missing, or a model without a tile
    """
    root = pathlib.Path(output_path)
    pattern = parameters["model"]
    seen = root.glob(pattern.format(model="*", seed="*")) if not pathlib.Path(pattern).is_absolute() else []
    if pathlib.Path(pattern).is_absolute():
        seen = pathlib.Path("/").glob(pattern.format(model="*", seed="*").lstrip("/"))
    text = re.escape(str(root / pattern))
    for field, kind in (("model", "[^_/]+"), ("seed", r"\d+")):
        text = text.replace(rf"\{{{field}\}}", f"(?P<{field}>{kind})", 1).replace(rf"\{{{field}\}}", f"(?P={field})")
    named = [m.groupdict() for m in (re.fullmatch(text, str(p)) for p in seen) if m]
    if not named:
        raise complaint("model", f'nothing at "{root / pattern}"', "a model per region and seed")
    tiles = {}
    for path in sorted((root / "classif" / "MASK").glob("MASK_region_*_*.tif")):
        region, tile = path.stem.split("_", 3)[2:]
        tiles.setdefault(region, []).append(tile)
    if "{model}" not in pattern and not tiles:
        raise complaint("mask", "none in classif/MASK", "a mask per region and tile")
    found = {(model, int(m.get("seed", 0))) for m in named for model in ([m["model"]] if "model" in m else tiles)}
    runs = 1 + max(seed for _, seed in found)
    for model in sorted({m for m, _ in found}):
        for seed in range(runs):
            if (model, seed) not in found:
                raise complaint("model", f'no file at "{root / pattern.format(model=model, seed=seed)}"', "a model per region and seed")
    regions = {m: tuple(tiles.get(m.split("f")[0], ())) for m in sorted({m for m, _ in found})}
    for model, where in regions.items():
        if not where:
            raise complaint("mask", f"none of region {model.split('f')[0]} in classif/MASK", f"a mask per tile for the model {model}")
    return regions, runs


def main(words=None):
    parser = argparse.ArgumentParser(prog="python3 -m otbtorch.iota2", description=__doc__.split("\n")[0])
    parser.add_argument("--output-path", required=True, help="the run's folder, iota2's output_path")
    parser.add_argument("--parameters", help=f"JSON; {parameter_file.FILE} in the run's folder, if there is one, else defaults")
    parser.add_argument("--probability", action="store_true", help="write PROBAMAP_* as well")
    parser.add_argument("--workers", type=int, default=1, help="tasks side by side")
    parser.add_argument("--threads", type=int, help="threads of a task")
    given = parser.parse_args(words)
    try:
        if given.parameters:
            parameters = parameter_file.read(given.parameters)
        else:
            parameters = parameter_file.find(pathlib.Path(given.output_path) / "configuration")
        regions, runs = discover(given.output_path, parameters)
        chain = Chain(
            str(given.output_path), tuple(sorted({t for tiles in regions.values() for t in tiles})), regions, runs, parameters,
            given.probability or bool(parameters["probability"]), threads=given.threads,
        )  # fmt: skip
        stages = [classification_tasks(chain)] + ([merge_tasks(chain)] if parameters["chunks"] > 1 else [])
    except Iota2Error as error:
        print(f"ERROR {error}", file=sys.stderr)
        return 2
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(max(1, given.workers)) as pool:
        for tasks in stages:
            jobs = {pool.submit(task.function, **task.arguments): task for task in tasks}
            for job in concurrent.futures.as_completed(jobs):
                try:
                    job.result()
                    print(jobs[job].name)
                except Iota2Error as error:
                    failed += 1
                    print(f"ERROR {jobs[job].name}: {error}", file=sys.stderr)
            if failed:
                break
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
