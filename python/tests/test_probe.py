"""Probing of networks whose receptive field is known."""

import pytest
import torch
from torch import nn

from otbtorch.contract import change_detection
from otbtorch.models import PatchAttentionCD, SiameseUNet
from otbtorch.models.unet import receptive_radius
from otbtorch.probe import probe_halo


class Difference(nn.Module):
    """A network of one image on the difference of the two."""

    def __init__(self, *layers):
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x1, x2):
        return self.net(x1 - x2)


def conv(inputs, outputs, size=3, dilation=1):
    return nn.Conv2d(inputs, outputs, size, padding=dilation * (size // 2), dilation=dilation)


def contract(patch=32, halo=8, multiple=1, blend="crop"):
    return change_detection(
        "m",
        ["r", "g"],
        None,
        patch=patch,
        halo=halo,
        multiple=multiple,
        blend=blend,
        license="CC0-1.0",
        training_data="none",
    )


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_stack_of_convolutions(count):
    layers = [conv(2, 4), nn.ReLU()]
    for _ in range(count - 2):
        layers += [conv(4, 4), nn.ReLU()]
    layers += [conv(4, 1)] if count > 1 else [conv(4, 1, 1)]
    report = probe_halo(Difference(*layers), contract())
    assert (report.radius, report.stride, report.blend) == (count, 1, "crop")
    assert report.radius_999 <= report.radius
    assert report.dtype == "float64" and report.warnings == []


def test_dilated():
    net = Difference(conv(2, 4), nn.ReLU(), conv(4, 4, dilation=4), nn.ReLU(), conv(4, 1, 5))
    assert probe_halo(net, contract()).radius == 1 + 4 + 2


def test_pixel():
    report = probe_halo(Difference(conv(2, 4, 1), nn.ReLU(), conv(4, 1, 1)), contract(halo=0))
    assert (report.radius, report.stride) == (0, 1) and report.warnings == []


def test_halo_too_small_is_a_warning():
    net = Difference(conv(2, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), conv(4, 1))
    (warning,) = probe_halo(net, contract(halo=2)).warnings
    assert "halo, 2, is too small: pixels up to 3 px away" in warning


@pytest.mark.parametrize("depth", [1, 2])
def test_unet(depth):
    net = SiameseUNet(2, 4, depth).eval()
    radius = receptive_radius(depth)
    for module in (net, torch.jit.script(net)):
        report = probe_halo(module, contract(64, radius, 2**depth))
        assert (report.radius, report.stride) == (radius, 2**depth)
        assert report.blend == "crop" and report.halo == radius and report.warnings == []


def test_stride_is_found_although_the_contract_says_one():
    report = probe_halo(SiameseUNet(2, 4, 1).eval(), contract(64, 16, 1))
    assert report.radius == receptive_radius(1) and report.stride == 2
    assert any("multiple" in w for w in report.warnings)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)])
def test_normalisation_over_the_patch(norm):
    report = probe_halo(Difference(conv(2, 4), norm, nn.ReLU(), conv(4, 1)), contract())
    assert (report.radius, report.stride, report.blend) == (None, None, "hann")
    assert any("declare hann" in w for w in report.warnings)


def test_attention():
    net = PatchAttentionCD(2, 4).eval()
    report = probe_halo(net, contract(32, 16, 4, "hann"))
    assert report.blend == "hann" and report.radius is None and report.warnings == []


def test_position_dependent():
    class Ramp(nn.Module):
        def forward(self, x1, x2):
            ramp = torch.linspace(0, 1, x1.shape[-1], dtype=x1.dtype)
            return (x1 - x2)[:, :1] * ramp

    report = probe_halo(Ramp(), contract())
    assert (report.radius, report.stride, report.blend) == (0, None, "hann")
    assert "where a pixel is" in report.conclusion


def test_single_precision_only():
    class Single(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(2, 1)

        def forward(self, x1, x2):
            return nn.functional.conv2d(x1 - x2, self.conv.weight.float(), padding=1)

    report = probe_halo(Single(), contract())
    assert (report.dtype, report.radius, report.stride) == ("float32", 1, 1)


def test_fixed_size():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(2, 1)

        def forward(self, x1, x2):
            assert x1.shape[-1] == 32, "32 pixels only"
            return self.conv(x1 - x2)

    report = probe_halo(Fixed(), contract())
    assert report.size == 32 and "32 pixels only" in report.fixed_size
    assert (report.radius, report.stride) == (1, 1)


def test_the_network_is_left_alone():
    net = Difference(conv(2, 1))
    net.train()
    probe_halo(net, contract())
    assert net.training and net.net[0].weight.dtype == torch.float32
    assert net.net[0].weight.requires_grad


def test_a_network_that_fails():
    with pytest.raises(RuntimeError, match="its own patch"):
        probe_halo(Difference(conv(3, 1)), contract())
