"""The builder of 2020: constructors of steps in a container, models and tiles known before."""

from functools import partial

from .Steps import theirs
from .Steps.IOTA2Step import Step, StepContainer


class iota2:
    steps_group = ("learning", "classification", "mosaic")

    def __init__(self, cfg, config_ressources, hpc_working_directory="TMPDIR"):
        self.cfg = cfg
        self.workingDirectory = None
        self.steps = self.build_steps(cfg, config_ressources)
        for step in self.steps:
            assert step.step_group in self.steps_group and step.func.step_description()

    def build_steps(self, cfg, config_ressources=None):
        Step.set_models_spatial_information(*theirs.distribution(cfg))
        made = StepContainer()
        for step, group in (
            (theirs.learnModel, "learning"),
            (theirs.classification, "classification"),
            (theirs.ScikitClassificationsMerge, "classification"),
            (theirs.mosaic, "mosaic"),
        ):
            made.append(partial(step, cfg, config_ressources, self.workingDirectory), group)
        return made

    def get_final_i2_exec_graph(self, first_step_index, last_step_index):
        for step in self.steps[first_step_index : last_step_index + 1]:
            step()
        return Step.get_exec_graph()
