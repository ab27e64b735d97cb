"""OTBTorch, the Python side: model contracts, export to TorchScript, receptive-field probing.

Importing this package does not import torch: reading and validating a contract needs jsonschema
only. The names below are loaded at first use.

``otbtorch.export`` is both the sub-module and the function: the module is callable.
"""

import importlib

__version__ = "0.1.0"

_LAZY = {
    "ContractError": "contract",
    "Violation": "contract",
    "change_detection": "contract",
    "change_likelihood": "contract",
    "min_max": "contract",
    "output": "contract",
    "read": "contract",
    "time_series": "contract",
    "validate": "contract",
    "z_score": "contract",
    "ExportError": "export",
    "ExportReport": "export",
    "HaloReport": "probe",
    "probe_halo": "probe",
}

__all__ = ["__version__", "export"] + sorted(_LAZY)


def __getattr__(name):
    if name == "export":
        return importlib.import_module(".export", __name__)
    if name in _LAZY:
        return getattr(importlib.import_module("." + _LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(set(globals()) | set(__all__))
