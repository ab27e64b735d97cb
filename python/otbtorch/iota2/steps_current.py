"""The steps on iota2's current interface (``iota2.steps.iota2_step``).

Not tested against iota2 itself: names are those of its documentation and of programs that use it.
"""

from . import steps

try:
    from iota2.configuration_files import read_config_file
    from iota2.steps import iota2_step
except ImportError as error:
    raise steps.missing("the current interface", error) from error


def _parameter(cfg, section, key):
    return read_config_file.ReadConfigFile(cfg).get_param(section, key)


INTERFACE = steps.Interface(
    name="current",
    step=iota2_step.Step,
    parameter=_parameter,
    output_path=("chain", "output_path"),
    runs=("arg_train", "runs"),
    probability=("arg_classification", "enable_probability_map"),
    fusion=("arg_train", "dempster_shafer_sar_opt_fusion"),
    task="I2Task" if hasattr(iota2_step.Step, "I2Task") else "i2_task",
)
TorchClassification, TorchClassificationMerge, TorchObjectFeatures = steps.make_steps(INTERFACE, __name__)
