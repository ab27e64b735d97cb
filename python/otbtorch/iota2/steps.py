"""The steps of this module for iota2, made from one description for two interfaces.

``steps_2020`` and ``steps_current`` are the classes; importing one of them needs that iota2. What a
task is (function, arguments, its place in the graph) is described here, without iota2.
"""

import dataclasses
import re

from . import Iota2Error, classify, complaint, features
from . import parameters as parameter_file
from .classify import labels_of_run

SUFFIX = "usually"  # iota2's word for what is not SAR beside an optical classification


@dataclasses.dataclass(frozen=True)
class Task:
    """One call, and where it stands in iota2's graph: ``group[sub_group]`` after ``dependencies``."""

    name: str
    function: object
    arguments: dict
    group: str
    sub_group: str
    dependencies: dict


@dataclasses.dataclass(frozen=True)
class Chain:
    """What steps know of a run. ``regions``: {model: tiles}; ``ram``: MB; ``threads`` of a task."""

    output_path: str
    tiles: tuple
    regions: dict
    runs: int
    parameters: dict
    probability: bool = False
    working_directory: str = None
    ram: int = None
    threads: int = None

    def labels(self):
        return labels_of_run(self.output_path, self.parameters, self.regions, range(self.runs))

    def works(self):
        """(tile, model, seed) of every map."""
        return [(t, m, s) for m, tiles in self.regions.items() for s in range(self.runs) for t in tiles]

    def _machine(self):
        return dict(ram=self.ram, threads=self.threads, working_directory=self.working_directory)


def key(tile, model, seed, chunk=None):
    """The sub-group under which iota2's steps after the classification look for a map."""
    return f"{tile}_{model}_{seed}_{SUFFIX}" + ("" if chunk is None else f"_{chunk}")


def classification_tasks(chain):
    """A task per tile, model, seed (and chunk): they wait for their model alone."""
    labels = chain.labels()
    chunks = chain.parameters["chunks"]
    tasks = []
    for tile, model, seed in chain.works():
        for chunk in [None] if chunks == 1 else range(chunks):
            name = f"torch_classification_{tile}_model_{model}_seed_{seed}"
            arguments = dict(
                output_path=chain.output_path, tile=tile, model=model, seed=seed, parameters=chain.parameters,
                labels=labels, probability=chain.probability, chunk=chunk, **chain._machine(),
            )  # fmt: skip
            tasks.append(
                Task(
                    name if chunk is None else f"{name}_{chunk}", classify.classify_tile, arguments,
                    "tile_tasks_model_mode", key(tile, model, seed, chunk),
                    {"region_tasks": [f"model_{model}_seed_{seed}_{SUFFIX}"]},
                )
            )  # fmt: skip
    return tasks


def merge_tasks(chain):
    """A task per tile, model and seed, after its chunks, under the name that other steps wait for."""
    chunks = chain.parameters["chunks"]
    if chunks == 1:
        raise complaint("chunks", 1, "2 or more, for the step that merges them", "Leave the step out.")
    return [
        Task(
            f"torch_merge_{tile}_model_{model}_seed_{seed}",
            classify.merge_chunks,
            dict(
                output_path=chain.output_path, tile=tile, model=model, seed=seed, parameters=chain.parameters,
                probability=chain.probability, working_directory=chain.working_directory,
            ),
            "tile_tasks_model_mode",
            key(tile, model, seed),
            {"tile_tasks_model_mode": [key(tile, model, seed, k) for k in range(chunks)]},
        )
        for tile, model, seed in chain.works()
    ]  # fmt: skip


def object_tasks(chain):
    """A task per tile: its embedding, then the statistics of its objects."""
    return [
        Task(
            f"torch_objects_{tile}", features.object_features,
            dict(output_path=chain.output_path, tile=tile, parameters=chain.parameters, **chain._machine()),
            "tile_tasks", f"{tile}_objects", {"tile_tasks": [tile]},
        )
        for tile in chain.tiles
    ]  # fmt: skip


STEPS = {
    "TorchClassification": (classification_tasks, "Classify with TorchScript models"),
    "TorchClassificationMerge": (merge_tasks, "Merge the chunks of TorchScript classifications"),
    "TorchObjectFeatures": (object_tasks, "Embeddings and their statistics per object"),
}


# ---------------------------------------------------------------------------------------------
# Interfaces


def megabytes(text):
    """MB of iota2's resources, "5gb" or a number of GB; None where it is none of these."""
    found = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)i?b?\s*", str(text).lower())
    if not found or not found.group(1).strip("."):
        return None
    return int(float(found.group(1)) * {"k": 1 / 1024, "m": 1, "g": 1024, "t": 1 << 20, "": 1024}[found.group(2)])


@dataclasses.dataclass(frozen=True)
class Interface:
    """How one generation of iota2 names what steps need."""

    name: str
    step: type
    parameter: object  # function (cfg, section, key)
    output_path: tuple
    runs: tuple
    probability: tuple
    fusion: tuple
    task: str

    def chain(self, step, given, working_directory):
        def read(where, default=None):
            try:
                value = self.parameter(step.cfg, *where)
            except Exception:  # each generation has its own errors for a parameter that is not there
                return default
            return default if value is None else value

        if read(self.fusion, False) is True:
            raise Iota2Error(
                f"{'.'.join(self.fusion)}: found true; expected false. "
                "A network takes both sensors at once: list them under sensors, and leave the fusion of maps away."
            )
        resources = step.resources
        pick = resources.get if isinstance(resources, dict) else lambda key, default=None: getattr(resources, key, default)
        # The application's own need comes on top of its -ram; half leaves room for it.
        ram = megabytes(pick("ram"))
        probability = given["probability"]
        if probability is None:
            probability = bool(read(self.probability, False))
        return Chain(
            output_path=str(self.parameter(step.cfg, *self.output_path)),
            tiles=tuple(step.tiles),
            regions={str(m): tuple(meta["tiles"]) for m, meta in step.spatial_models_distribution.items()},
            runs=int(self.parameter(step.cfg, *self.runs)),
            parameters=given,
            probability=probability,
            working_directory=working_directory,
            ram=ram // 2 if ram else None,
            threads=pick("cpu") or pick("nb_cpu"),
        )


def after_previous(step):
    """Dependencies on all tasks of the step before, as iota2's graph knows them; empty for a first step.

    iota2 runs what its last step depends on, and nothing else.
    """
    if len(step.step_container) < 2:
        return {}
    tasks = {id(t) for t in step.step_container[-2].step_tasks}
    found = {
        group: [name for name, task in members.items() if id(task) in tasks]
        for group, members in step.tasks_graph.items()
        if isinstance(members, dict)
    }
    return {group: names for group, names in found.items() if names}


def make_steps(interface, module):
    """Classes of the steps on an interface, as if written in ``module``: workers find them by name."""

    def make(name, describe, description):
        def __init__(self, cfg, cfg_resources_file=None, working_directory=None, parameters=None):
            given = parameters or parameter_file.find(cfg)
            interface.step.__init__(self, cfg, cfg_resources_file, given["resources"])
            self.execution_mode = given["execution"] or "cluster"
            chain = interface.chain(self, given, working_directory)
            task_class = getattr(self, interface.task)
            # Maps are asked for by the steps that follow; tables of objects by nobody, so they end the chain.
            before = after_previous(self) if describe is object_tasks else None
            for task in describe(chain):
                self.add_task_to_i2_processing_graph(
                    task_class(
                        task_name=task.name,
                        log_dir=self.log_step_dir,
                        execution_mode=self.execution_mode,
                        task_parameters={"f": task.function, **task.arguments},
                        task_resources=self.resources,
                    ),
                    task_group=task.group,
                    task_sub_group=task.sub_group,
                    task_dep_dico=before or task.dependencies,
                )

        def step_description(cls):
            return description

        body = {
            "__doc__": f"{description}; see :mod:`otbtorch.iota2.steps`. ({interface.name})",
            "__module__": module,
            "__init__": __init__,
            "step_description": classmethod(step_description),
        }
        return type(name, (interface.step,), body)

    return [make(name, *description) for name, description in STEPS.items()]


def missing(what, error):
    """The error of an interface that is not installed."""
    return ImportError(
        f"{what} of iota2 is not importable ({error}). Run this inside iota2's environment; what works without it: doc/iota2.md."
    )
