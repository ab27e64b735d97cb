"""Published change detectors: sizes of the paper, shapes, symmetry, the way through the exporter."""

import pytest
import torch

from otbtorch import contract, export
from otbtorch.models import FCEF, FCSiamConc, FCSiamDiff, TokenCD

ALL = [FCEF, FCSiamConc, FCSiamDiff, TokenCD]


def parameters(network):
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_those_that_the_literature_gives():
    """For RGB: 1.35, 1.55 and 1.35 million parameters (as papers that compare with them say)."""
    sizes = [round(parameters(network(3)) / 1e6, 2) for network in (FCEF, FCSiamConc, FCSiamDiff)]
    assert sizes == [1.35, 1.55, 1.35]


@pytest.mark.parametrize("architecture", ALL)
def test_two_logits_a_pixel(architecture):
    network = architecture(5).eval()
    with torch.no_grad():
        y = network(torch.randn(2, 5, 48, 32), torch.randn(2, 5, 48, 32))
    assert y.shape == (2, 2, 48, 32) and torch.isfinite(y).all()


def test_differences_do_not_see_the_order_on_the_skips():
    """The deepest features are those of date 2 alone; the skips are symmetric."""
    torch.manual_seed(0)
    network = FCSiamDiff(3).eval()
    a, b = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        first, _ = network.encoder(a)
        second, deep = network.encoder(b)
        skips = [(p - q).abs() for p, q in zip(second, first)]
        assert torch.equal(network(a, b), network.decoder(skips, deep))


def test_tokens_make_no_difference_between_equal_dates():
    """With the same positions for both dates, equal dates are refined equally."""
    torch.manual_seed(0)
    network = TokenCD(3).eval()
    with torch.no_grad():
        network.positions[:, 4:] = network.positions[:, :4]
        x, y = torch.randn(1, 3, 32, 32), torch.randn(1, 3, 32, 32)
        z = network(x, x)
        other = network(y, y)
    assert torch.allclose(z, other, atol=1e-5)


@pytest.mark.parametrize("architecture", ALL)
def test_every_one_is_exported(architecture, tmp_path):
    torch.manual_seed(1)
    hann = architecture is TokenCD
    made = contract.change_detection(
        "net", ["a", "b"], None, patch=64 if hann else 128, halo=0 if hann else 16,
        multiple=4 if hann else 16, blend="hann" if hann else "crop", license="Apache-2.0",
        training_data="none: a test", outputs=[contract.output("change", "change_logits", channels=2)],
    )  # fmt: skip
    export.export(architecture(2).eval(), made, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").exists()
