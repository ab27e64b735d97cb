"""The base of steps under its current name; ``I2Task``."""

from ..configuration_files import read_config_file
from ..graph import Graph, StepContainer, Task

__all__ = ["Step", "StepContainer"]


class Step(Graph):
    I2Task = Task

    def __init__(self, cfg, cfg_resources_file, resources_block_name=None):
        self.cfg = cfg
        output_path = read_config_file.ReadConfigFile(cfg).get_param("chain", "output_path")
        super().__init__(output_path, {"nb_cpu": 1, "ram": "1gb"})
