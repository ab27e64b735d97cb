import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def models_dir(tmp_path_factory):
    from otbtorch import testing

    directory = tmp_path_factory.mktemp("models")
    testing.write_models(str(directory))
    return directory
