"""Deterministic models for the tests: ``python3 -m otbtorch.testing DIR``.

Small networks with random weights and valid contracts, and broken files of every kind. Their
parameters are seeded, batch normalisation is calibrated on random data and then disturbed (so that
its running statistics matter), and the last layer is rescaled so that logits have mean -1 and
standard deviation 2 on standard normal inputs.
"""

import argparse
import copy
import os
import sys
from typing import Dict

import torch
from torch import Tensor, nn

from . import contract as contracts
from .contract import change_detection, output, z_score
from .export import export, write
from .models import PatchAttentionCD, SiameseUNet, SiameseUNetSemantic
from .models.unet import receptive_radius

BANDS = ["B02", "B03", "B04", "B08"]
# Digital numbers of a 10 m Sentinel-2 reflectance (10000 = 1), different at the two dates.
SCALING_1 = dict(mean=[1105.0, 1355.0, 1552.0, 2743.0], stddev=[1809.0, 1757.0, 1888.0, 1742.0])
SCALING_2 = dict(mean=[1050.0, 1290.0, 1610.0, 2650.0], stddev=[1700.0, 1800.0, 1750.0, 1900.0])
CLASSES_4 = [
    (1, "water", "1F78B4"),
    (2, "vegetation", "33A02C"),
    (3, "built", "E31A1C"),
    (4, "bare", "B15928"),
]
CLASSES_3 = [(1, "forest", "1B7837"), (2, "crop", "E6C229"), (3, "urban", "D7301F")]
UNET_DEPTH = 2
UNET_MULTIPLE = 2**UNET_DEPTH
UNET_HALO = contracts.ceil_to_multiple(receptive_radius(UNET_DEPTH), UNET_MULTIPLE)
NAN_ABOVE = 8.0


class PixelCD(nn.Module):
    """1 x 1 convolutions on |x1 - x2| and x1 + x2: halo 0, any size, cheap."""

    def __init__(self, bands: int, width: int = 8, channels: int = 1):
        super().__init__()
        self.first = nn.Conv2d(2 * bands, width, 1)
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        x = torch.cat([(x1 - x2).abs(), x1 + x2], dim=1)
        return self.head(torch.relu(self.first(x)))


class ProbabilityCD(nn.Module):
    """A network of logits followed by a sigmoid."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return torch.sigmoid(self.net(x1, x2))


class DictCD(nn.Module):
    """Returns a dictionary, with the output of the contract that comes last inserted first."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x1: Tensor, x2: Tensor) -> Dict[str, Tensor]:
        difference = (x1 - x2).abs().mean(dim=1, keepdim=True)
        return {"difference": difference, "change": self.net(x1, x2)}


class NanCD(nn.Module):
    """NaN at the pixels where band 0 of x1, scaled, is above ``NAN_ABOVE``."""

    def __init__(self, net: nn.Module, above: float = NAN_ABOVE):
        super().__init__()
        self.net = net
        self.above = above

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        y = self.net(x1, x2)
        return y.masked_fill(x1[:, 0:1] > self.above, float("nan"))


class Attention(nn.Module):
    """Of every pixel to all, with residual."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).chunk(3, dim=-1)
        weights = torch.softmax(torch.matmul(q, k.transpose(1, 2)) * self.width**-0.5, dim=-1)
        mixed = tokens + self.project(torch.matmul(weights, v))
        return mixed.transpose(1, 2).reshape(n, c, h, w)


class FlowNet(nn.Module):
    """A velocity v(x, t | condition) with all the methods that a model may have beside it.

    ``encode`` and ``decode`` are an autoencoder of a quarter of the side, which the velocity does
    not use.
    """

    def __init__(self, bands: int = 4, width: int = 16, latent: int = 6):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(8, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(2 * bands, width, 3, padding=1)
        self.norm = nn.GroupNorm(4, width)
        self.down = nn.Conv2d(width, width, 4, 4)
        self.attention = Attention(width)
        self.last = nn.Conv2d(2 * width, bands, 3, padding=1)
        self.encoder = nn.Sequential(
            nn.Conv2d(bands, width, 4, 2, 1),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, latent, 4, 2, 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, width, 3, padding=1),
            nn.SiLU(),
            nn.Upsample(scale_factor=4.0, mode="nearest"),
            nn.Conv2d(width, bands, 3, padding=1),
        )

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
        angles = t.to(x.dtype)[:, None] * torch.arange(1, 5, device=x.device).to(x.dtype)
        time = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        given = condition * flag.to(x.dtype)[:, None, None, None]
        y = self.first(torch.cat([x, given], dim=1)) + time[:, :, None, None]
        y = nn.functional.silu(self.norm(y))
        coarse = self.attention(self.down(y)).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return self.last(torch.cat([y, coarse], dim=1))

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        y = nn.functional.silu(self.norm(self.first(x.repeat(1, 2, 1, 1))))
        return self.attention(self.down(y))

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


class NoGradFlow(nn.Module):
    """tanh(W x + t), cut off from autograd as exported networks often are."""

    def __init__(self, bands: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(bands, bands, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.tanh(self.conv(x) + t[:, None, None, None])


class DivFlow(NoGradFlow):
    """The same with the product e^T J as a method of its own."""

    @torch.jit.export
    def div(self, x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x) + t[:, None, None, None])
        return nn.functional.conv_transpose2d(e * (1.0 - y * y), self.conv.weight, padding=1)


class WrongDivFlow(NoGradFlow):
    """Returns J e where e^T J is asked for."""

    @torch.jit.export
    def div(self, x: Tensor, t: Tensor, e: Tensor) -> Tensor:
        y = torch.tanh(self.conv(x) + t[:, None, None, None])
        return (1.0 - y * y) * nn.functional.conv2d(e, self.conv.weight, padding=1)


def flow_models():
    """``{file name: network}`` of what denoises; contracts are written where they are used."""
    torch.manual_seed(21)
    flow = FlowNet()
    with torch.no_grad():
        flow.encoder(torch.randn(16, 4, 32, 32))  # statistics
    return {
        "flow.pt": flow.eval(),
        "flow_nograd.pt": NoGradFlow().eval(),
        "flow_div.pt": DivFlow().eval(),
        "flow_wrongdiv.pt": WrongDivFlow().eval(),
    }


def seeded(make, seed, bands, size=96, heads=()):
    """Builds a network with seeded weights, calibrates batch norm and the heads; in ``eval``.

    ``heads`` are the names of the last layers; those named are rescaled, output by output.
    """
    torch.manual_seed(seed)
    net = make()
    x1 = torch.randn(4, bands, size, size)
    x2 = 0.6 * x1 + 0.8 * torch.randn(4, bands, size, size)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    with torch.no_grad():
        for norm in norms:
            norm.momentum = None  # cumulative average: the statistics of the data
        net.train()
        net(x1, x2)
        net.eval()
        for norm in norms:
            norm.momentum = 0.1
            norm.running_mean += 0.1 * torch.randn_like(norm.running_mean)
            norm.running_var *= 1.0 + 0.2 * torch.rand_like(norm.running_var)
            norm.weight += 0.1 * torch.randn_like(norm.weight)
            norm.bias += 0.1 * torch.randn_like(norm.bias)
        for name in heads:
            head = net.get_submodule(name)
            captured = []
            hook = head.register_forward_hook(lambda _m, _i, y: captured.append(y))
            net(x1, x2)
            hook.remove()
            y = torch.cat(captured).transpose(0, 1).flatten(1)
            gain = 2.0 / y.std(dim=1).clamp_min(1e-6)
            shift = -1.0 if len(gain) == 1 else 0.0
            head.weight *= gain.reshape(-1, 1, 1, 1)
            head.bias.copy_((head.bias - y.mean(dim=1)) * gain + shift)
    return net


def _contract(name, patch, halo, outputs=None, bands=BANDS, **options):
    count = len(bands)
    fields = dict(
        license="CC0-1.0",
        training_data="none: random weights, for tests",
        gsd_m=10.0,
        nodata=0.0,
        nodata_fill=0.0,
        architecture="test",
    )
    fields.update(options)
    return change_detection(
        name,
        list(bands),
        z_score(SCALING_1["mean"][:count], SCALING_1["stddev"][:count]),
        scaling2=z_score(SCALING_2["mean"][:count], SCALING_2["stddev"][:count]),
        patch=patch,
        halo=halo,
        outputs=outputs,
        **fields,
    )


def _unet_contract(name, outputs=None, tta=("swap", "d4")):
    return _contract(
        name, 96, UNET_HALO, outputs, multiple=UNET_MULTIPLE, tta=tta, architecture="FC-Siam-diff"
    )


def _sem_outputs():
    return [
        output("change", "change_logits"),
        output("sem1", "sem1_logits", classes=CLASSES_4),
        output("sem2", "sem2_logits", classes=CLASSES_4),
    ]


def valid_models():
    """``{file name: (network, contract)}`` of the models that export accepts."""
    depth = UNET_DEPTH
    models = {}
    models["unet.pt"] = (
        seeded(lambda: SiameseUNet(4, 8, depth), 1, 4, heads=["decoder.head"]),
        _unet_contract("unet"),
    )
    models["unet_sem.pt"] = (
        seeded(
            lambda: SiameseUNetSemantic(4, 4, 8, depth),
            2,
            4,
            heads=["change.head", "semantic.head"],
        ),
        _unet_contract("unet_sem", _sem_outputs()),
    )
    # The direction of a transition changes with the order of the dates: no swap.
    models["transition.pt"] = (
        seeded(lambda: SiameseUNet(4, 8, depth, 10), 3, 4, heads=["decoder.head"]),
        _unet_contract(
            "transition",
            [output("transition", "transition_logits", classes=CLASSES_3)],
            tta=("d4",),
        ),
    )
    models["attention.pt"] = (
        seeded(lambda: PatchAttentionCD(4, 16), 4, 4, size=64, heads=["head.3"]),
        _contract(
            "attention", 64, 32, multiple=4, blend="hann", architecture="GroupNorm + attention"
        ),
    )
    models["twochannel.pt"] = (
        seeded(lambda: PixelCD(4, 8, 2), 5, 4, heads=["head"]),
        _contract("twochannel", 64, 0, [output("change", "change_logits", channels=2)]),
    )
    models["prob.pt"] = (
        ProbabilityCD(seeded(lambda: PixelCD(4), 6, 4, heads=["head"])).eval(),
        _contract("prob", 64, 0, [output("change", "change_probability")]),
    )
    models["dict.pt"] = (
        DictCD(seeded(lambda: PixelCD(4), 7, 4, heads=["head"])).eval(),
        _contract(
            "dict", 64, 0, [output("change", "change_logits"), output("difference", "aux")]
        ),
    )
    models["pixel.pt"] = (
        seeded(lambda: PixelCD(4), 8, 4, heads=["head"]),
        _contract("pixel", 128, 0, tta=("swap", "d4")),
    )
    models["nan.pt"] = (
        NanCD(seeded(lambda: PixelCD(4), 9, 4, heads=["head"])).eval(),
        _contract("nan", 64, 0),
    )
    models["oneband.pt"] = (
        seeded(lambda: PixelCD(1), 10, 1, heads=["head"]),
        _contract("oneband", 64, 0, bands=BANDS[:1]),
    )
    return models


def invalid_contract():
    """A contract with violations in different places (see ``INVALID_PATHS``)."""
    contract = _contract("invalid", 64, 0)
    p = contract["properties"]
    del p["mlm:input"][0]["value_scaling"]
    p["mlm:input"][1]["otb:date"] = 1
    p["mlm:input"][1]["value_scaling"][2]["stddev"] = 0
    p["mlm:output"][0]["otb:roles"] = "change_logits"
    p["otb:tiling"]["halo"] = 32
    p["otb:calibration"]["threshold"] = 1.5
    del p["otb:provenance"]["license"]
    return contract


INVALID_PATHS = [
    "/properties/mlm:input/0/value_scaling",
    "/properties/mlm:input/1/otb:date",
    "/properties/mlm:input/1/value_scaling/2/stddev",
    "/properties/mlm:output/0/otb:roles",
    "/properties/otb:calibration/threshold",
    "/properties/otb:provenance/license",
    "/properties/otb:tiling/halo",
]

BROKEN = [
    "corrupt.pt",
    "truncated.pt",
    "notscript.pt",
    "nocontract.pt",
    "invalid.pt",
    "mismatch_channels.pt",
    "mismatch_outputs.pt",
    "empty.pt",
]


def write_models(directory):
    """Writes all the models into ``directory`` (created); returns the names of the files."""
    os.makedirs(directory, exist_ok=True)

    def at(name):
        return os.path.join(directory, name)

    models = valid_models()
    for name, (net, contract) in models.items():
        export(net, contract, at(name))

    pixel = torch.jit.script(models["pixel.pt"][0])
    torch.manual_seed(11)
    with open(at("corrupt.pt"), "wb") as stream:
        stream.write(bytes(torch.randint(0, 256, (4096,), dtype=torch.uint8).tolist()))
    with open(at("unet.pt"), "rb") as stream:
        whole = stream.read()
    with open(at("truncated.pt"), "wb") as stream:
        stream.write(whole[: len(whole) // 2])
    torch.save(models["pixel.pt"][0].state_dict(), at("notscript.pt"))
    write(pixel, None, at("nocontract.pt"))
    write(pixel, invalid_contract(), at("invalid.pt"))
    three = torch.jit.script(seeded(lambda: PixelCD(3), 12, 3, heads=["head"]))
    write(three, _contract("mismatch_channels", 64, 0), at("mismatch_channels.pt"))
    sem = copy.deepcopy(_contract("mismatch_outputs", 64, 0, _sem_outputs()))
    write(pixel, sem, at("mismatch_outputs.pt"))
    open(at("empty.pt"), "wb").close()
    flows = flow_models()
    for name, net in flows.items():
        write(torch.jit.script(net), None, at(name))
    return list(models) + BROKEN + list(flows)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python3 -m otbtorch.testing", description=__doc__)
    parser.add_argument("directory", help="where to write the models")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    for name in write_models(args.directory):
        print(f"{name:24} {os.path.getsize(os.path.join(args.directory, name)):8d} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
