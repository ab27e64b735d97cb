"""The test models and the command line."""

import json

import pytest
import torch

from otbtorch import contract as contracts
from otbtorch import testing
from otbtorch.__main__ import main

VALID = [
    "unet.pt",
    "unet_sem.pt",
    "transition.pt",
    "attention.pt",
    "twochannel.pt",
    "prob.pt",
    "dict.pt",
    "pixel.pt",
    "nan.pt",
    "oneband.pt",
]


@pytest.mark.parametrize("name", VALID)
def test_valid_models(models_dir, name, capsys):
    assert main(["validate", str(models_dir / name)]) == 0
    assert "all right" in capsys.readouterr().out
    assert main(["inspect", str(models_dir / name)]) == 0
    assert "tiling" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name,code,part",
    [
        ("corrupt.pt", 2, "not a zip"),
        ("truncated.pt", 2, "truncated"),
        ("notscript.pt", 2, "no code"),
        ("nocontract.pt", 2, "no contract"),
        ("empty.pt", 2, "empty"),
        ("absent.pt", 2, "No such file"),
        ("invalid.pt", 1, "7 violation(s)"),
        ("mismatch_channels.pt", 1, "the network fails on inputs [2, 4, 64, 64]"),
        ("mismatch_outputs.pt", 1, "the contract declares 3"),
    ],
)
def test_broken_models(models_dir, name, code, part, capsys):
    assert main(["validate", str(models_dir / name)]) == code
    captured = capsys.readouterr()
    assert part in captured.out + captured.err


def test_invalid_paths(models_dir):
    found = contracts.validate(contracts.read(models_dir / "invalid.pt").data)
    assert [v.path for v in found] == testing.INVALID_PATHS


def test_the_set_is_complete_and_deterministic(models_dir):
    names = {p.name for p in models_dir.iterdir()}
    assert names == set(VALID) | set(testing.BROKEN) | set(testing.flow_models())
    for name, (net, _) in testing.valid_models().items():
        again = net.state_dict()
        for key, value in torch.jit.load(str(models_dir / name)).state_dict().items():
            assert torch.equal(value, again[key]), (name, key)


def test_spread_of_logits(models_dir):
    torch.manual_seed(0)
    for name in ("unet.pt", "attention.pt", "pixel.pt"):
        x1, x2 = torch.randn(1, 4, 96, 96), torch.randn(1, 4, 96, 96)
        y = torch.jit.load(str(models_dir / name))(x1, x2)
        assert 0.8 < float(y.std()) < 5.0 and 0.02 < float((y > 0).float().mean()) < 0.98


def test_nan_model(models_dir):
    x = torch.zeros(1, 4, 64, 64)
    x[0, 0, 3, 5] = testing.NAN_ABOVE + 1
    y = torch.jit.load(str(models_dir / "nan.pt"))(x, torch.zeros_like(x))
    assert torch.isnan(y[0, 0, 3, 5]) and int(torch.isnan(y).sum()) == 1


def test_json(models_dir, capsys):
    assert main(["inspect", "--json", str(models_dir / "unet.pt")]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["contract"]["id"] == "unet" and facts["violations"] == []
    assert facts["unsupported"] == [] and facts["torchscript"]
    assert main(["validate", "--json", str(models_dir / "invalid.pt")]) == 1
    violations = json.loads(capsys.readouterr().out)["violations"]
    assert {"path", "message"} == set(violations[0]) and len(violations) == 7


def test_contract_option(models_dir, tmp_path, capsys):
    other = tmp_path / "c.json"
    other.write_text(contracts.to_text(contracts.read(models_dir / "pixel.pt").data))
    arguments = [str(models_dir / "nocontract.pt"), "--contract", str(other)]
    assert main(["validate"] + arguments) == 0
    assert str(other) in capsys.readouterr().out


def test_probe_halo(models_dir, capsys):
    assert main(["probe-halo", "--json", str(models_dir / "pixel.pt")]) == 0
    assert json.loads(capsys.readouterr().out)["radius"] == 0
    assert main(["probe-halo", str(models_dir / "invalid.pt")]) == 1


def test_summary_of_odd_but_valid_fields(models_dir, tmp_path, capsys):
    made = contracts.read(models_dir / "pixel.pt").data
    first, second = made["properties"]["mlm:input"]
    first["value_scaling"] = None
    second["value_scaling"] = [{"type": "scale", "value": 1e4}] * 3 + contracts.min_max(0, 1)
    first["bands"][0] = {"name": "B02"}
    for name in ("otb:calibration", "otb:method"):
        del made["properties"][name]
    for name in ("multiple", "blend", "tta"):
        del made["properties"]["otb:tiling"][name]
    other = tmp_path / "c.json"
    other.write_text(json.dumps(made))
    assert main(["inspect", str(models_dir / "pixel.pt"), "--contract", str(other)]) == 0
    text = capsys.readouterr().out
    assert "none (raw values)" in text and "min-max: minimum 0; maximum 1" in text
