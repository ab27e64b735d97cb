"""A builder of today: a list of containers."""

from functools import partial

from ..steps.iota2_step import StepContainer


class Classification:
    pass


class Mosaic:
    pass


class I2Classification:
    def __init__(self, cfg, config_resources, schduler_type="localCluster"):
        self.cfg = cfg
        self.working_directory = None
        self.steps = self.build_steps(cfg, config_resources)

    def build_steps(self, cfg, config_resources=None):
        made = StepContainer("classification")
        made.append(partial(Classification, cfg, config_resources), "classification")
        made.append(partial(Mosaic, cfg, config_resources), "mosaic")
        return [made]
