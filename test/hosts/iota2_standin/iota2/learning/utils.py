"""Labels of features as objects."""

from dataclasses import dataclass


@dataclass
class I2Label:
    sensor_name: str
    feat_name: str
