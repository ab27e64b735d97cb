"""For ``builders.builders_paths`` of iota2: this folder; ``builders_class_name: ["I2TorchClassification"]``."""

from otbtorch.iota2.builder import builder_current

I2TorchClassification = builder_current(__name__)
