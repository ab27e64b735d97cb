"""The density-ratio network and its recipe."""

import json

import numpy as np
import torch

from otbtorch import contract as contracts
from otbtorch.models.change_ratio import ChangeRatio
from otbtorch.recipes import train_change


def test_logit_a_pixel_whatever_the_size():
    network = ChangeRatio(bands=3, width=8).eval()
    for height, width in ((16, 24), (64, 40)):
        assert network(torch.zeros(2, 12, height, width)).shape == (2, 1, height, width)


def test_beyond_the_halo_nothing_is_seen():
    torch.manual_seed(0)
    network = train_change.build_network().eval()
    x = torch.randn(1, 16, 160, 160)
    other = x.clone()
    other[..., :24, :] = torch.randn(1, 16, 24, 160)
    with torch.no_grad():
        a, b = network(x), network(other)
    assert torch.equal(a[..., 24 + 48 :, :], b[..., 24 + 48 :, :])
    assert not torch.equal(a, b)


def test_saturated_pixels_do_not_run_away():
    network = ChangeRatio().eval()
    with torch.no_grad():
        assert torch.equal(network(torch.full((1, 16, 16, 16), 50.0)), network(torch.full((1, 16, 16, 16), 6.0)))


def test_contract_is_valid():
    assert contracts.validate(train_change.contract("change-s2")) == []


def test_shipped_model_has_the_contract_of_the_recipe():
    extra = {"mlm.json": ""}
    path = train_change.__file__.split("python")[0] + "data/models/change-s2.pt"
    network = torch.jit.load(path, _extra_files=extra)
    ratio = json.loads(extra["mlm.json"])["properties"]["otb:ratio"]
    assert ratio == {"weight": train_change.WEIGHT, "smooth": train_change.SIGMA}
    assert network(torch.zeros(1, 16, 32, 32)).shape == (1, 1, 32, 32)


def test_training_is_repeatable():
    rng = np.random.default_rng(0)
    base = train_change.smooth(rng.normal(size=(128, 128)).astype(np.float32), 2)
    dates = [np.stack([base * 800 + 60 * rng.normal(size=base.shape) + 900 for _ in range(4)]).astype(np.float32) for _ in "12"]
    pairs = [train_change.Pair("one", *dates), train_change.Pair("other", *dates[::-1])]
    options = train_change.Options(steps=2, batch=2, crop=64)
    one, other = (train_change.train(pairs, options, 0).state_dict() for _ in range(2))
    assert all(torch.equal(one[k], other[k]) for k in one)
