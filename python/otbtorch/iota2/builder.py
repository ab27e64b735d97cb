"""Builders of iota2 whose chain classifies with this module: theirs, with our steps in the place of the classification.

``builders/i2_torch_classification.py`` is what ``builders.builders_paths`` of the current iota2 is
pointed at; :func:`builder_2020` is the class for the interface of 2020.
"""

import functools

from . import complaint
from . import parameters as parameter_file

CLASSIFICATION = {"classification"}
# Chunks of ours are merged by our own step.
MERGE = {"scikitclassificationsmerge"}


def _name(entry):
    made = getattr(entry, "func", entry)
    return getattr(made, "__name__", type(made).__name__).lower()


def _containers(made):
    """The lists of steps in what ``build_steps`` returned: one container, or a list of them."""
    found = made if isinstance(made, (list, tuple)) else [made]
    if not found or not all(isinstance(getattr(c, "container", None), list) for c in found):
        raise complaint("build_steps", type(made).__name__, "iota2's StepContainer", "This version of iota2 is not known to this module.")
    return found


def insert_steps(made, steps, arguments, given):
    """Puts our steps where iota2's classification is, in place; returns ``made``.

    :param made: what iota2's ``build_steps`` returned
    :param steps: the module ``steps_2020`` or ``steps_current``
    :param arguments: (configuration, resources, working directory) of the steps
    :param given: checked parameters
    :raises Iota2Error: there is no classification step
    """

    def ours(step, group):
        entry = functools.partial(step, *arguments, parameters=given)
        entry.step_group = group
        return entry

    replaced = 0
    containers = _containers(made)
    for container in containers:
        entries = []
        for entry in container.container:
            if _name(entry) in CLASSIFICATION:
                replaced += 1
                entries.append(ours(steps.TorchClassification, entry.step_group))
                if given["chunks"] > 1:
                    entries.append(ours(steps.TorchClassificationMerge, entry.step_group))
            elif _name(entry) not in MERGE:
                entries.append(entry)
        container.container[:] = entries
    if not replaced:
        raise complaint("build_steps", "no classification step", "a chain that classifies pixels")
    last = containers[-1].container
    if given["objects"] is not None:
        last.append(ours(steps.TorchObjectFeatures, last[-1].step_group))
    for container in containers:  # iota2's own append links them
        for one, next_one in zip(container.container, container.container[1:]):
            one.next_step, next_one.previous_step = next_one, one
    return made


def make_builder(base, steps, name, module=__name__):
    """A builder like ``base``, with our steps. Parameters: see :func:`.parameters.find`."""

    def build_steps(self, cfg, *more, **named):
        given = parameter_file.find(cfg)
        made = base.build_steps(self, cfg, *more, **named)
        resources = more[0] if more else next(iter(named.values()), None)
        working = getattr(self, "workingDirectory", None) or getattr(self, "working_directory", None)
        return insert_steps(made, steps, (cfg, resources, working), given)

    doc = f"{base.__name__}, classifying with TorchScript models (otbtorch.iota2)."
    return type(name, (base,), {"__doc__": doc, "__module__": module, "build_steps": build_steps})


def builder_2020():
    """The builder on iota2 of 2020 (``iota2.Iota2Builder.iota2``). Raises ImportError where it is not installed."""
    from . import steps_2020

    from iota2 import Iota2Builder

    return make_builder(Iota2Builder.iota2, steps_2020, "Iota2Torch")


def builder_current(module=__name__):
    """The builder on the current iota2 (``I2Classification``). Raises ImportError where it is not installed."""
    from . import steps_current

    from iota2.sequence_builders import i2_classification

    base = getattr(i2_classification, "I2Classification", None) or i2_classification.i2_classification
    return make_builder(base, steps_current, "I2TorchClassification", module)
