"""The steps on iota2's interface of 2020 (``iota2.Steps.IOTA2Step``, ``i2_task``)."""

from . import steps

try:
    from iota2.Common import ServiceConfigFile
    from iota2.Steps import IOTA2Step
except ImportError as error:
    raise steps.missing("the interface of 2020", error) from error


def _parameter(cfg, section, key):
    return ServiceConfigFile.serviceConfigFile(cfg).getParam(section, key)


INTERFACE = steps.Interface(
    name="2020",
    step=IOTA2Step.Step,
    parameter=_parameter,
    output_path=("chain", "outputPath"),
    runs=("chain", "runs"),
    probability=("argClassification", "enable_probability_map"),
    fusion=("argTrain", "dempster_shafer_SAR_Opt_fusion"),
    task="i2_task",
)
TorchClassification, TorchClassificationMerge, TorchObjectFeatures = steps.make_steps(INTERFACE, __name__)
