"""Contracts of change-likelihood: the builder, the trial forward, export and the command line."""

import json
import os

import pytest
import torch
from torch import Tensor, nn

import otbtorch
from otbtorch import contract as contracts
from otbtorch.__main__ import main
from otbtorch.contract import change_likelihood, output, validate, z_score
from otbtorch.export import ExportError, dry_run, export, forward_inputs, make_inputs
from otbtorch.probe import LATENT, probe_halo

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
P = "/properties"
FLOW = {"kind": "velocity", "schedule": "fm_linear", "time": "continuous01", "data_at": 1}
LATENT_METHODS = {"encode": {"channels": 3, "scale": 4}, "decode": {"channels": 2, "scale": 1}}


def made(**options):
    fields = dict(patch=32, halo=4, license="CC0-1.0", training_data="none")
    fields.update(options)
    return change_likelihood("m", ["r", "g"], z_score([1, 2], [3, 4]), **fields)


def diffusion(time, schedule="linear_beta", **fields):
    return {"kind": "epsilon", "schedule": schedule, "time": time, **fields}


KINDS = {
    "flow": dict(generative=FLOW, null="flag"),
    "unconditional": dict(generative=FLOW),
    "discrete": dict(generative=diffusion("discrete_index"), null="zeros", time_type="int64"),
    "variance": dict(generative=diffusion("logsnr", predicts_var=True), null="none"),
    "edm": dict(generative={"kind": "edm", "schedule": "edm", "time": "sigma"}),
    "latent": dict(generative=FLOW, null="flag", methods=LATENT_METHODS),
    "masked": dict(masked={"patch": 8, "groups": 4}),
    "masked_pair": dict(masked={"patch": 8, "groups": 4, "norm_pix": True}, null="none"),
    "ratio": dict(ratio={"weight": 0.5, "smooth": 2.5}),
    "features": dict(features={"channels": 5}),
}


class Field(nn.Module):
    """Any number of images, times, flags and masks: what a contract asks for, in and out."""

    def __init__(self, planes, channels):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(planes, channels, 3, padding=1)


class FlowField(Field):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
        given = condition * flag[:, None, None, None]
        return self.mix(torch.cat([x, given], 1)) * t[:, None, None, None]


class PlainField(Field):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.mix(x) * (1 + torch.log(t))[:, None, None, None]


class IndexField(Field):
    def __init__(self, planes, channels):
        super().__init__(planes, channels)
        self.table = nn.Embedding(1000, channels)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.mix(torch.cat([x, condition], 1)) + self.table(t)[:, :, None, None]


class PairField(Field):
    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return self.mix(torch.cat([x, condition], 1)) * t[:, None, None, None]


class LatentField(FlowField):
    def __init__(self, planes, channels):
        super().__init__(planes, channels)
        self.down = nn.Conv2d(2, 3, 4, stride=4)
        self.up = nn.ConvTranspose2d(3, 2, 4, stride=4)

    @torch.jit.export
    def encode(self, x: Tensor) -> Tensor:
        return self.down(x)

    @torch.jit.export
    def decode(self, z: Tensor) -> Tensor:
        return self.up(z)


class MaskedField(Field):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.mix(torch.where(mask > 0.5, torch.zeros_like(x), x))


class MaskedPair(Field):
    def forward(self, x: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        return self.mix(torch.cat([x * (1 - mask), condition], 1))


class One(Field):
    def forward(self, x: Tensor) -> Tensor:
        return self.mix(x)


NETWORKS = {
    "flow": lambda: FlowField(4, 2),
    "unconditional": lambda: PlainField(2, 2),
    "discrete": lambda: IndexField(4, 2),
    "variance": lambda: PairField(4, 4),
    "edm": lambda: PlainField(2, 2),
    "latent": lambda: LatentField(6, 3),
    "masked": lambda: MaskedField(2, 2),
    "masked_pair": lambda: MaskedPair(4, 2),
    "ratio": lambda: One(8, 1),
    "features": lambda: One(2, 5),
}


def test_example_is_valid():
    with open(os.path.join(ROOT, "doc", "examples", "change-likelihood.mlm.json")) as stream:
        assert validate(json.load(stream)) == []


@pytest.mark.parametrize("name", KINDS)
def test_the_builder_makes_valid_contracts(name):
    contract = made(**KINDS[name])
    assert validate(contract) == []
    assert "otb:calibration" not in contract["properties"]
    assert all("otb:date" not in e for e in contract["properties"]["mlm:input"])


def test_the_builder_orders_the_arguments():
    roles = [e["otb:role"] for e in made(**KINDS["flow"])["properties"]["mlm:input"]]
    assert roles == ["image", "diffusion_time", "condition", "condition_flag"]
    latent = made(**KINDS["latent"])
    roles = [e["otb:role"] for e in latent["properties"]["mlm:input"]]
    assert roles == ["latent", "diffusion_time", "condition_latent", "condition_flag", "image"]
    assert latent["properties"]["otb:method"]["forward"] == ["z", "t", "condition", "flag"]
    assert [e["name"] for e in forward_inputs(latent)] == ["z", "t", "condition", "flag"]


def test_the_builder_keeps_its_arguments():
    methods = {"encode": {"channels": 3, "scale": 4}}
    contract = made(generative=FLOW, methods=methods)
    contract["properties"]["otb:methods"]["encode"]["scale"] = 5
    assert methods == {"encode": {"channels": 3, "scale": 4}}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_exported_inspected_and_validated(name, tmp_path, capsys):
    path = tmp_path / "m.pt"
    report = export(NETWORKS[name](), made(**KINDS[name]), path)
    assert report.method == "script" and report.fixed_size is None
    assert report.sizes == [32, 40] and report.batches == [1, 2, 5]
    assert main(["validate", str(path)]) == 0
    assert main(["inspect", str(path)]) == 0
    text = capsys.readouterr().out
    kind = contracts.likelihood_kind(contracts.read(path).data["properties"])[4:]
    assert f"\n  {kind} " in text and "a file of the run" in text
    for method in KINDS[name].get("methods", {}):
        assert f"method       {method}: channels" in text


def test_features_are_counted_at_export(tmp_path):
    export(One(2, 5), made(features={}), tmp_path / "m.pt")
    found = contracts.read(tmp_path / "m.pt").data["properties"]["mlm:output"][0]
    assert found["result"]["shape"] == [-1, 5, 32, 32]


@pytest.mark.parametrize(
    "generative,low,high",
    [
        (FLOW, 0, 1),
        (diffusion("logsnr", logsnr_range=[-2, 3]), -2, 3),
        (diffusion("sigma", logsnr_range=[-2, 3]), 0.22, 2.72),
        (diffusion("discrete_index", "cosine"), 0, 999),
        (diffusion("discrete_index", {"type": "linear_beta", "steps": 7}), 0, 6),
        (
            diffusion("discrete_index", {"type": "table", "alphas_cumprod": [0.9, 0.5, 0.1]}),
            0,
            2,
        ),
    ],
)
def test_times_are_those_of_the_model(generative, low, high):
    contract = made(generative=generative)
    assert validate(contract) == []
    for generator in (None, torch.Generator().manual_seed(0)):
        times = make_inputs(contract, 200, 8, generator)[1]
        assert times.shape == (200,) and low <= times.min() and times.max() <= high
        if generator and high - low > 1:
            assert times.max() - times.min() > 0.8 * (high - low)
        if generative["time"] == "discrete_index":
            assert torch.equal(times, times.floor())


def test_masks_are_of_whole_tokens():
    contract = made(**KINDS["masked"])
    mask = make_inputs(contract, 50, 32, torch.Generator().manual_seed(0))[1]
    assert mask.shape == (50, 1, 32, 32)
    tokens = mask[..., ::8, ::8]
    assert torch.equal(mask, tokens.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert 0.7 < float(tokens.mean()) < 0.8  # one of four is visible


def test_latents_have_their_own_size():
    contract = made(**KINDS["latent"])
    shapes = [list(x.shape) for x in make_inputs(contract, 2, 64)]
    assert shapes == [[2, 3, 16, 16], [2], [2, 3, 16, 16], [2]]


def refused(tmp_path, module, contract):
    with pytest.raises(ExportError) as caught:
        export(module, contract, tmp_path / "m.pt")
    assert os.listdir(tmp_path) == []
    return str(caught.value)


def test_methods_that_are_missing_or_wrong(tmp_path):
    contract = made(**KINDS["latent"])
    text = refused(tmp_path, FlowField(6, 3), contract)
    assert f"{P}/otb:methods/encode: the module has no method encode" in text

    class Hidden(LatentField):
        @torch.jit.unused
        def decode(self, z: Tensor) -> Tensor:
            return self.up(z)

    assert "no method decode" in refused(tmp_path, Hidden(6, 3), contract)
    contract["properties"]["otb:methods"]["decode"] = {"channels": 2, "scale": 1}
    contract["properties"]["otb:methods"]["features"] = {"channels": 7, "scale": 2}

    class Seven(LatentField):
        @torch.jit.export
        def features(self, x: Tensor) -> Tensor:
            return x[:, :1]

    text = refused(tmp_path, Seven(6, 3), contract)
    assert "features gives [2, 1, 32, 32], [2, 7, 16, 16] is declared" in text


def test_a_method_that_is_not_marked_is_not_exported(tmp_path):
    class Unmarked(FlowField):
        def features(self, x: Tensor) -> Tensor:
            return x

    contract = made(methods={"features": {"channels": 2, "scale": 1}}, **KINDS["flow"])
    assert dry_run(Unmarked(4, 2), contract) == []
    assert "@torch.jit.export" in refused(tmp_path, Unmarked(4, 2), contract)


def test_div_is_looked_for_only(tmp_path):
    class Div(PlainField):
        @torch.jit.export
        def div(self, x: Tensor, t: Tensor, e: Tensor) -> Tensor:
            return e

    contract = made(methods={"div": {}}, generative=FLOW)
    export(Div(2, 2), contract, tmp_path / "m.pt")
    (tmp_path / "m.pt").unlink()
    assert "otb:methods/div" in refused(tmp_path, PlainField(2, 2), contract)


@pytest.mark.parametrize("name,network", [("flow", One(2, 2)), ("ratio", One(8, 2))])
def test_networks_that_contradict_the_contract(tmp_path, name, network):
    text = refused(tmp_path, network, made(**KINDS[name]))
    assert "mlm:input" in text if name == "flow" else "[2, 2, 32, 32]" in text


@pytest.mark.parametrize(
    "options,path",
    [
        (dict(), P),
        (dict(features={}, ratio={}), P),
        (dict(generative={**FLOW, "kind": "v_diffusion"}), f"{P}/otb:generative/kind"),
        (dict(generative=FLOW, time_type="int64"), f"{P}/mlm:input/1/input/data_type"),
        (dict(masked={"patch": 5, "groups": 4}), f"{P}/otb:masked/patch"),
        (dict(masked={"patch": 8, "groups": 4}, null="zeros"), f"{P}/mlm:input/2/otb:null"),
        (dict(features={"channels": 0}), f"{P}/otb:features/channels"),
        (
            dict(features={}, outputs=[output("y", "reconstruction", 2)]),
            f"{P}/mlm:output/0/otb:role",
        ),
    ],
)
def test_mistakes_of_the_builder(options, path):
    contract = made(outputs=options.pop("outputs", [output("features", "features", 4)]), **options)
    assert path in [v.path for v in validate(contract)]


def test_halo_is_measured_where_there_are_pixels():
    report = probe_halo(FlowField(4, 2), made(**KINDS["flow"]), n=1)
    assert report.radius == 1
    assert probe_halo(IndexField(4, 2), made(**KINDS["discrete"]), n=1).radius == 1
    assert probe_halo(MaskedField(2, 2), made(**KINDS["masked"]), n=1).radius == 1
    with pytest.raises(ValueError, match="latents"):
        probe_halo(LatentField(6, 3), made(**KINDS["latent"]), n=1)


def test_halo_of_latents_is_skipped(tmp_path, capsys):
    export(NETWORKS["latent"](), made(**KINDS["latent"]), tmp_path / "m.pt")
    assert main(["probe-halo", str(tmp_path / "m.pt")]) == 0
    assert LATENT in capsys.readouterr().out


def test_it_is_a_name_of_the_package():
    assert otbtorch.change_likelihood is change_likelihood
