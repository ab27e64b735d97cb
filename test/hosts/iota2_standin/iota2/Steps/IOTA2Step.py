"""The base of steps of 2020: ``Step(cfg, resources file, name of its block)``, ``i2_task``."""

from ..Common import ServiceConfigFile
from ..graph import Graph, StepContainer, Task

__all__ = ["Step", "StepContainer"]


class Step(Graph):
    i2_task = Task

    def __init__(self, cfg, cfg_resources_file, resources_block_name=None):
        self.cfg = cfg
        output_path = ServiceConfigFile.serviceConfigFile(cfg).getParam("chain", "outputPath")
        super().__init__(output_path, {"cpu": 1, "ram": "1gb", "walltime": "00:10:00", "resource_block_name": resources_block_name})
