"""The two small generative models of pairs and their recipe."""

import os
import zipfile

import numpy as np
import pytest
import torch

from otbtorch import contract as contracts
from otbtorch.export import dry_run
from otbtorch.models.flow import PairFlow, PairMasked
from otbtorch.recipes import train_flow as recipe

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
NAMES = ("flow-s2", "mae-s2")


def small_flow():
    return PairFlow(4, widths=[8, 16, 16], embedding=8, frequencies=2)


def stirred(net):
    """A network whose blocks do something: the last layers of each start at zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return net.eval()


def made_up_pairs(count=2, side=72):
    """Pairs of smooth noise: the second date is a gain of the first, but for a square."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        first = recipe.gaussian(rng.standard_normal((4, side, side)).astype(np.float32), 2)
        first = 1500 + 800 * first / first.std()
        second = 0.8 * first + 20 * rng.standard_normal(first.shape).astype(np.float32)
        second[:, 20:32, 30:42] = 4000
        pairs.append([first, second])
    return pairs


@pytest.fixture(scope="module")
def prepared():
    raw = made_up_pairs()
    masks = [recipe.suspicious(*recipe.classical(p)) for p in raw]
    return raw, masks, recipe.prepare(raw, masks, *recipe.statistics(raw))


def test_flow_shapes_and_start():
    net = small_flow()
    x, t = torch.randn(3, 4, 32, 40), torch.tensor([0.0, 0.5, 1.0])
    out = net(x, t, torch.randn_like(x), torch.ones(3))
    # Untrained, it is the best linear guess: -x from pure noise, nothing halfway, x at the data.
    assert torch.allclose(out, (2 * t - 1)[:, None, None, None] * x * torch.tensor(
        [1.0, 2.0, 1.0])[:, None, None, None], atol=1e-6)
    assert net.features(x).shape == (3, 16, 8, 10)


def test_flow_knows_no_condition_without_flag():
    net = stirred(small_flow())
    x, t, off = torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.8]), torch.zeros(2)
    a = net(x, t, torch.randn_like(x), off)
    assert torch.equal(a, net(x, t, torch.zeros_like(x), off))
    assert not torch.equal(a, net(x, t, torch.zeros_like(x), off + 1))


def test_flow_is_local_and_differentiable():
    net = stirred(PairFlow())
    x = torch.randn(1, 4, 128, 128, requires_grad=True)
    out = net(x, torch.tensor([0.5]), torch.zeros_like(x), torch.ones(1))
    (gradient,) = torch.autograd.grad(out[0, :, 64, 64].sum(), x)
    seen = gradient.abs().sum((0, 1)).nonzero()
    reach = int((seen - 64).abs().max())
    assert 0 < reach <= recipe.HALO["flow-s2"]
    assert torch.isfinite(gradient).all()


def test_masked_does_not_look_at_hidden_tokens():
    net = stirred(PairMasked(4, widths=[8, 16, 16]))
    x, other = torch.randn(2, 4, 32, 32), torch.randn(2, 4, 32, 32)
    mask = torch.zeros(2, 1, 32, 32)
    mask[..., :16] = 1
    out = net(x, mask, other)
    assert out.shape == x.shape
    assert torch.equal(out, net(x + 5 * mask, mask, other))
    assert not torch.equal(out, net(x + 5 * (1 - mask), mask, other))


@pytest.mark.parametrize("name", NAMES)
def test_export_round_trip(tmp_path, name):
    net = stirred(PairFlow() if name == "flow-s2" else PairMasked())
    recipe.save(net, name, [1000.0] * 4, [500.0] * 4, str(tmp_path), recipe.HALO[name])
    path = str(tmp_path / (name + ".pt"))
    loaded = torch.jit.load(path)
    declared = contracts.read(path).data
    assert contracts.validate(declared) == [] and dry_run(loaded, declared) == []
    x, other = torch.randn(2, 4, 128, 128), torch.randn(2, 4, 128, 128)
    if name == "flow-s2":
        arguments = (x, torch.tensor([0.3, 0.9]), other, torch.tensor([1.0, 0.0]))
        assert torch.equal(loaded.features(x), net.features(x))
    else:
        arguments = (x, (torch.rand(2, 1, 128, 128) > 0.5).float(), other)
    assert torch.allclose(loaded(*arguments), net(*arguments), atol=1e-5)
    check_file(path)


def check_file(path):
    """At most 2 MB, and nothing of the machine that made it."""
    assert os.path.getsize(path) <= 2_000_000
    with zipfile.ZipFile(path) as archive:
        assert not [n for n in archive.namelist() if n.endswith(".debug_pkl")]


@pytest.mark.parametrize("name", NAMES)
def test_shipped(name):
    path = os.path.join(ROOT, "data", "models", name + ".pt")
    if not os.path.exists(path):
        pytest.skip("not in this tree")
    check_file(path)
    declared = contracts.read(path).data
    assert contracts.validate(declared) == [] and dry_run(torch.jit.load(path), declared) == []
    assert os.path.exists(path[:-3] + ".md")


def test_suspicious_finds_the_change(prepared):
    _, masks, pairs = prepared
    for mask, pair in zip(masks, pairs):
        assert mask.mean() == pytest.approx(recipe.SUSPICIOUS, abs=0.005)
        assert mask[22:30, 32:40].mean() > 0.9
        assert np.array_equal(pair.sure, 1 - mask)


def test_sample_keeps_dates_and_places_together(prepared):
    pairs = prepared[2]
    x, other, sure = recipe.sample(pairs, np.random.default_rng(3), batch=16, crop=32)
    assert x.shape == other.shape == (16, 4, 32, 32) and sure.shape == (16, 1, 32, 32)
    # Dates are alike but for a gain and an offset where nothing changed.
    kept = sure[0, 0] > 0
    assert np.corrcoef(x[0, 0][kept], other[0, 0][kept])[0, 1] > 0.95


@pytest.mark.parametrize("kind", ["flow", "masked"])
def test_training_lowers_the_loss_and_is_repeatable(prepared, kind):
    def run():
        torch.manual_seed(0)
        net = small_flow() if kind == "flow" else PairMasked(4, widths=[8, 16, 16])
        loss = recipe.flow_loss if kind == "flow" else recipe.masked_loss
        return recipe.train(net, loss, prepared[2], 80, 0, batch=4, crop=32)

    net, losses = run()
    assert np.mean(losses[-20:]) < 0.9 * np.mean(losses[:5])
    again, _ = run()
    for a, b in zip(net.parameters(), again.parameters()):
        assert torch.equal(a, b)


def test_loss_of_the_pair_skips_suspicious_pixels(prepared):
    net = stirred(PairMasked(4, widths=[8, 16, 16]))
    x, other, sure = recipe.sample(prepared[2], np.random.default_rng(0), 2, 32)
    sure = torch.ones_like(sure)
    sure[..., 8:16, 8:16] = 0
    moved = x.clone()
    moved[..., 8:16, 8:16] += 3
    seen = []

    def watched(image, mask, condition):
        mask = mask.clone()
        seen.append(image[..., 8:16, 8:16].abs().max())
        return net(image * (1 - mask), mask, condition)

    for seed in range(20):  # until that token is hidden in both
        a = recipe.masked_loss(watched, x, other, sure, np.random.default_rng(seed))
        b = recipe.masked_loss(watched, moved, other, sure, np.random.default_rng(seed))
        if seen[-1] == 0:
            assert a == b
            return
    raise AssertionError("the token was never hidden")


def test_scores_and_metrics(prepared):
    raw, masks, pairs = prepared
    flow, masked = small_flow(), PairMasked(4, widths=[8, 16, 16])
    mean, std = recipe.statistics(raw)
    truth = np.zeros(masks[0].shape, bool)
    truth[20:32, 30:42] = True
    found, bits = recipe.evaluate(
        flow, masked, raw[0], recipe.classical(raw[0]), truth, mean, std, 64)
    assert {"pmi", "cond", "latent", "denoise", "feature", "mae", "regress"} <= set(found)
    assert found["regress"][0] > 0.95 and found["mae"][0] > 0.9
    assert found["pmi"][0] == 0.5  # untrained: the other date tells nothing
    # Untrained, the field is that of a standard Gaussian of the scaled values.
    x = (np.stack(raw[0])[..., 4:68, 4:68] - mean[:, None, None]) / std[:, None, None]
    nll = 0.5 * np.log(2 * np.pi) + 0.5 * (x ** 2).mean() + np.log(std).mean()
    assert bits == pytest.approx([nll / np.log(2)] * 2, rel=1e-5)
    assert recipe.metrics(np.array([3.0, 1.0, 2.0]), np.array([True, False, False])) == (1, 1)


def test_nothing_changed_scores_zero():
    net = stirred(small_flow())
    x = torch.randn(1, 4, 32, 32).repeat(2, 1, 1, 1)
    with torch.no_grad():
        scores, _ = recipe.flow_scores(net, x, levels=2, steps=2)
    assert np.abs(scores["latent"]).max() == 0
    assert np.abs(scores["feature"]).max() < 1e-6
