"""Export to TorchScript: what it writes, and what it refuses to write."""

import os
from typing import Dict

import pytest
import torch
from torch import Tensor, nn

import otbtorch
from otbtorch import contract as contracts
from otbtorch.contract import change_detection, output
from otbtorch.export import ExportError, export, forbidden_operators
from otbtorch.models import PatchAttentionCD, SiameseUNet, SiameseUNetSemantic
from otbtorch.testing import PixelCD


def contract(outputs=None, patch=32, **options):
    fields = dict(halo=0, license="CC0-1.0", training_data="none")
    fields.update(options)
    return change_detection("m", ["r", "g"], None, patch=patch, outputs=outputs, **fields)


def refused(tmp_path, module, made=None, **options):
    """The text of the refusal; nothing may have been written."""
    path = tmp_path / "m.pt"
    path.write_bytes(b"before")
    with pytest.raises(ExportError) as caught:
        export(module, made or contract(), path, **options)
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["m.pt"]
    return str(caught.value)


class Unscriptable(nn.Module):
    """A lambda in forward cannot be scripted."""

    def forward(self, x1, x2):
        mean = lambda x: x.mean(1, keepdim=True)  # noqa: E731
        return mean(x1) - mean(x2)


class BakedBatch(nn.Module):
    def forward(self, x1, x2):
        pick = lambda x: x[:, :1]  # noqa: E731
        batch = int(x1.shape[0])
        return pick(x1).reshape(batch, 1, x1.shape[2], x1.shape[3]) - pick(x2)


class BakedSize(nn.Module):
    def forward(self, x1, x2):
        pick = lambda x: x[:, :1]  # noqa: E731
        ramp = torch.linspace(0, 1, int(x1.shape[-1]))
        return pick(x1) * ramp - pick(x2)


class BakedBranch(nn.Module):
    def forward(self, x1, x2):
        pick = lambda x: x[:, :1]  # noqa: E731
        if x1.shape[0] > 1:
            return pick(x1)
        return pick(x2)


def test_round_trip(tmp_path):
    net = PixelCD(2).train()
    made = contract()
    report = otbtorch.export(net, made, tmp_path / "m.pt")
    assert not net.training
    assert report.method == "script" and report.scripting_error is None
    assert report.batches == [1, 2, 5] and report.sizes == [32, 40]
    assert report.max_difference == 0.0 and report.bytes == (tmp_path / "m.pt").stat().st_size
    assert "mlm:framework_version" not in made["properties"]  # the argument is not modified
    found = contracts.read(tmp_path / "m.pt").data
    assert found["properties"]["mlm:framework_version"].startswith("1.")
    assert found["assets"]["model"]["href"] == "m.pt"
    extra = {"mlm.json": ""}
    loaded = torch.jit.load(str(tmp_path / "m.pt"), _extra_files=extra)
    assert b'"otb:task"' in extra["mlm.json"]
    x1, x2 = torch.randn(3, 2, 32, 32), torch.randn(3, 2, 32, 32)
    assert torch.equal(loaded(x1, x2), net(x1, x2))
    assert os.listdir(tmp_path) == ["m.pt"]


def test_result_shapes_are_filled(tmp_path):
    made = contract([output("c", "change_logits")])
    del made["properties"]["mlm:output"][0]["result"]
    export(PixelCD(2, channels=2), made, tmp_path / "m.pt")
    result = contracts.read(tmp_path / "m.pt").data["properties"]["mlm:output"][0]["result"]
    assert result["shape"] == [-1, 2, 32, 32] and result["data_type"] == "float32"


def test_traced_when_not_scriptable(tmp_path):
    report = export(Unscriptable(), contract(), tmp_path / "m.pt")
    assert report.method == "trace" and report.scripting_error
    assert "scripting failed" in str(report)


@pytest.mark.parametrize("module", [BakedBatch(), BakedSize(), BakedBranch()])
def test_baked_shapes(tmp_path, module):
    text = refused(tmp_path, module)
    assert "baked into the trace" in text
    assert "batch" in text


def test_fixed_size_is_reported(tmp_path):
    class Fixed(PixelCD):
        def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
            if x1.shape[-1] != 32:
                raise ValueError("32 pixels only")
            return self.head(torch.relu(self.first(torch.cat([x1, x2], 1))))

    report = export(Fixed(2), contract(), tmp_path / "m.pt")
    assert "32 pixels only" in report.fixed_size and report.sizes == [32]


def test_dictionary(tmp_path):
    class Named(nn.Module):
        def forward(self, x1: Tensor, x2: Tensor) -> Dict[str, Tensor]:
            return {"b": x1 - x2, "a": (x1 - x2).mean(1, keepdim=True)}

    outputs = [output("a", "change_logits"), output("b", "aux", channels=2)]
    export(Named(), contract(outputs), tmp_path / "m.pt")
    outputs[1]["name"] = "c"
    os.remove(tmp_path / "m.pt")
    assert "the contract declares {a, c}" in refused(tmp_path, Named(), contract(outputs))


def test_semantic_and_attention(tmp_path):
    classes = [(1, "a"), (2, "b"), (3, "c")]
    outputs = [
        output("change", "change_logits"),
        output("s1", "sem1_logits", classes=classes),
        output("s2", "sem2_logits", classes=classes),
    ]
    net = SiameseUNetSemantic(2, 3, width=4, depth=1)
    export(net, contract(outputs, multiple=2), tmp_path / "s.pt")
    hann = contract(multiple=4, blend="hann", halo=16)
    export(PatchAttentionCD(2, 4), hann, tmp_path / "a.pt")


def test_swap_symmetry():
    net = SiameseUNet(2, 4, 2).eval()
    x1, x2 = torch.randn(1, 2, 16, 16), torch.randn(1, 2, 16, 16)
    assert torch.equal(net(x1, x2), net(x2, x1))


def test_all_problems_at_once(tmp_path):
    made = contract()
    del made["properties"]["mlm:input"][0]["value_scaling"]
    made["properties"]["otb:tiling"]["halo"] = 16
    net = PixelCD(2)
    net.head.weight.data[0, 0] = float("inf")
    text = refused(tmp_path, net, made)
    assert "3 problem(s)" in text
    for part in ("head.weight is not finite", "mlm:input/0/value_scaling", "otb:tiling/halo"):
        assert part in text


@pytest.mark.parametrize(
    "module,outputs,part",
    [
        (PixelCD(3), None, "the network fails on inputs [2, 2, 32, 32]"),
        (PixelCD(2, channels=2), None, "[2, 2, 32, 32], [2, 1, 32, 32] is declared"),
        (
            PixelCD(2),
            [output("c", "change_logits"), output("x", "aux")],
            "returns 1 tensor(s), the contract declares 2 (c, x)",
        ),
        (nn.Sequential(PixelCD(2)), None, "the network fails"),
    ],
)
def test_mismatches(tmp_path, module, outputs, part):
    assert part in refused(tmp_path, module, contract(outputs))


def test_smaller_output_and_type(tmp_path):
    class Half(nn.Module):
        def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
            return (x1 - x2)[:, :1, ::2, ::2].double()

    text = refused(tmp_path, Half())
    assert "[2, 1, 16, 16], [2, 1, 32, 32] is declared" in text and "torch.float64" in text


def test_not_finite_output(tmp_path):
    class Logarithm(nn.Module):
        def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
            return torch.log(x1[:, :1]) - x2[:, :1]

    assert "is not finite" in refused(tmp_path, Logarithm())


def test_fused_attention_is_refused():
    graph = torch._C.parse_ir(
        """
        graph(%q : Tensor, %c : bool):
          %r : Tensor = prim::If(%c)
            block0():
              %y : Tensor = aten::scaled_dot_product_attention(%q, %q, %q)
              -> (%y)
            block1():
              -> (%q)
          return (%r)
        """
    )
    (message,) = forbidden_operators(graph)
    assert "LibTorch 1.13 cannot load it" in message and "softmax" in message
    assert forbidden_operators(torch.jit.script(PixelCD(2)).inlined_graph) == []


def test_baked_device_is_a_warning(tmp_path):
    class Device(nn.Module):
        def forward(self, x1, x2):
            pick = lambda x: x[:, :1]  # noqa: E731
            return pick(x1) - pick(x2) + torch.zeros(1, device=x1.device)

    report = export(Device(), contract(), tmp_path / "m.pt")
    assert any('device "cpu"' in w for w in report.warnings)


def test_atomic_write(tmp_path, monkeypatch):
    path = tmp_path / "m.pt"
    path.write_bytes(b"before")

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        export(PixelCD(2), contract(), path)
    assert path.read_bytes() == b"before" and os.listdir(tmp_path) == ["m.pt"]


def test_missing_directory(tmp_path):
    with pytest.raises(OSError):
        export(PixelCD(2), contract(), tmp_path / "absent" / "m.pt")
