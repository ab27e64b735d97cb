"""What the applications load before they are asked to run."""

import os
import subprocess

import pytest
from conftest import BIN

from otbtorch.launch import APPLICATIONS


@pytest.mark.parametrize("application", APPLICATIONS)
def test_help_does_not_load_libtorch(application):
    """By the loader's own record: the process is over too soon to be looked at."""
    done = subprocess.run(
        [str(BIN / f"otbcli_{application}"), "-help"],
        env=dict(os.environ, LD_DEBUG="files"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        errors="replace",
    )
    assert f"otbapp_{application}.so" in done.stdout
    assert "libtorch" not in done.stdout
