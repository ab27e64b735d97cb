"""Fixtures and helpers of the tests that run the applications in other programs.

As in test/app: launchers are in ``<repository>/build/bin``, or where ``OTBTORCH_BIN`` says.
"""

import os
import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "python"))
BIN = pathlib.Path(os.environ.setdefault("OTBTORCH_BIN", str(REPOSITORY / "build" / "bin"))).resolve()
MODELS = REPOSITORY / "data" / "models"
DATE1 = REPOSITORY / "data" / "scene" / "date1.tif"


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """The demonstration pair: (date 1, date 2), the second simulated with changes known exactly."""
    from otbtorch.recipes import demo_scene

    folder = tmp_path_factory.mktemp("pair")
    demo_scene.main(["--date1", str(DATE1), "--out", str(folder)])
    return DATE1, folder / "date2.tif"
