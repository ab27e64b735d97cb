"""Contracts of time series: the builder, export with inputs as a series may have, inspect."""

import json
import math
import os
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import Tensor, nn

from otbtorch import contract as contracts
from otbtorch.__main__ import main
from otbtorch.contract import (
    dates,
    latlon,
    month,
    normalized_difference,
    output,
    series,
    static,
    time_series,
    validate,
    validity,
    z_score,
)
from otbtorch.export import ExportError, export, make_inputs
from otbtorch.probe import probe_halo

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
CLASSES = [(1, "water"), (2, "crops"), (3, "forest")]
GRID = ("03-01", "10-27", 10)
WHO = dict(license="CC0-1.0", training_data="none")
P = "/properties"


def build(inputs, **options):
    return time_series("m", inputs, **{"classes": CLASSES, **WHO, **options})


def entry(contract, name):
    return next(e for e in contract["properties"]["mlm:input"] if e["name"] == name)


def paths(contract):
    return [v.path for v in validate(contract)]


# ---------------------------------------------------------------------------------------------
# Building


def test_example_is_valid():
    with open(os.path.join(ROOT, "doc", "examples", "time-series.mlm.json")) as stream:
        assert validate(json.load(stream)) == []


def test_single_pixel():
    made = build([series("x", ["a", "b"], None, steps=9, gapfill="linear"), dates("doy")])
    assert validate(made) == []
    assert made["properties"]["otb:tiling"] == {"unit": "pixel", "window": 1}
    assert entry(made, "x")["input"]["dim_order"] == ["batch", "time", "bands"]
    assert entry(made, "x")["input"]["shape"] == [-1, 9, 2]
    assert entry(made, "doy")["input"]["shape"] == [-1, 9]
    (result,) = [o["result"] for o in made["properties"]["mlm:output"]]
    assert result["shape"] == [-1, 3] and result["dim_order"] == ["batch", "channel"]


def test_window_and_bands_first():
    inputs = [series("x", ["a"], None, gapfill="none", layout="BCT"), static("z", ["dem"], None)]
    made = build(inputs, window=5)
    assert validate(made) == []
    assert entry(made, "x")["input"]["dim_order"][1:3] == ["bands", "time"]
    assert entry(made, "x")["input"]["shape"] == [-1, 1, -1, 5, 5]
    assert entry(made, "z")["input"]["shape"] == [-1, 1, 5, 5]


def test_patch():
    made = build([series("x", ["a"], None, grid=GRID)], patch=32, halo=4)
    assert validate(made) == []
    assert made["properties"]["mlm:output"][0]["result"]["shape"] == [-1, 3, 32, 32]
    assert made["properties"]["otb:tiling"]["unit"] == "patch"


@pytest.mark.parametrize(
    "grid,count",
    [
        (("2020-01-01", "2020-12-31", 1), 366),
        (("2021-01-01", "2021-12-31", 1), 365),
        (("01-05", "12-31", 10), 37),
        (("11-01", "03-01", 30), 5),
        (("2020-02-28", "2020-02-28", 9), 1),
    ],
)
def test_steps_are_those_of_the_grid(grid, count):
    made = build([series("x", ["a"], None, grid=grid)])
    assert entry(made, "x")["otb:temporal"]["length"] == count
    assert validate(made) == []


def test_masks_by_date_pixel_and_band():
    x = series("x", ["a", "b"], None, steps=4, policy="max", gapfill="none", layout="BCT")
    masks = [validity(g, "masked", granularity=g) for g in ("date", "pixel", "band")]
    made = build([x, *masks], window=3)
    assert validate(made) == []
    dims = [entry(made, g)["input"]["dim_order"] for g in ("date", "pixel", "band")]
    assert dims[0] == ["batch", "time"]
    assert dims[1] == ["batch", "time", "height", "width"]
    assert dims[2] == entry(made, "x")["input"]["dim_order"]
    assert entry(made, "band")["bands"] == ["a", "b"]


def test_two_sensors():
    made = build(
        [
            series(
                "s2", ["r", "n", normalized_difference("v", "n", "r")], z_score(0, 1), grid=GRID
            ),
            series("s1", ["VV"], None, grid=GRID, sensor=2),
            validity("m", "valid", granularity="band", of="s1"),
        ],
        sensors=["S2", ("S1", True)],
    )
    assert validate(made) == []
    assert made["properties"]["otb:sensors"] == [
        {"name": "S2"},
        {"name": "S1", "optional": True},
    ]
    assert [b["name"] for b in made["assets"]["model"]["bands"]] == ["r", "n", "VV"]


def test_of_is_needed_with_two_series():
    inputs = [series(n, ["a"], None, steps=3, gapfill="none") for n in ("x", "y")]
    assert paths(build([*inputs, dates("d")])) == [f"{P}/mlm:input/2/otb:of"]
    assert validate(build([*inputs, dates("d", of="y")])) == []


def test_all_roles():
    made = build(
        [
            series("x", ["a"], None, gapfill="none"),
            dates("d", "days_since", reference="2015-01-01", data_type="int64"),
            month("m"),
            latlon("ll"),
        ]
    )
    assert validate(made) == []
    assert entry(made, "m")["input"] == {
        "shape": [-1],
        "dim_order": ["batch"],
        "data_type": "int64",
    }


def test_builders_refuse_what_has_no_meaning():
    with pytest.raises(ValueError, match="gapfill"):
        series("x", ["a"], None, steps=3)
    with pytest.raises(ValueError, match="layout"):
        series("x", ["a"], None, steps=3, gapfill="none", layout="TBC")
    with pytest.raises(ValueError, match="granularity"):
        validity("m", "valid", granularity="patch")


# ---------------------------------------------------------------------------------------------
# Export


class Pooled(nn.Module):
    """The mean over valid steps; ``bands`` and two of the day of the year."""

    def __init__(self, bands, classes=3):
        super().__init__()
        self.step = nn.Linear(bands + 2, 8)
        self.head = nn.Linear(8, classes)

    def forward(self, x: Tensor, doy: Tensor, valid: Tensor) -> Tensor:
        angle = doy * (2 * math.pi / 365.25)
        season = torch.stack([angle.sin(), angle.cos()], 2)
        steps = torch.relu(self.step(torch.cat([x, season], 2))) * valid[:, :, None]
        return self.head(steps.sum(1) / valid.sum(1, keepdim=True).clamp(min=1))


def pooled(**options):
    fields = {"steps": 9, "policy": "max", "gapfill": "none", **options}
    return build(
        [series("x", ["a", "b"], None, **fields), dates("doy"), validity("valid", "valid")]
    )


def test_round_trip(tmp_path):
    report = export(Pooled(2), pooled(), tmp_path / "m.pt")
    assert report.method == "script" and report.batches == [1, 2, 5]
    assert report.sizes == [1] and report.steps == []
    assert validate(contracts.read(tmp_path / "m.pt").data) == []


def test_any_number_of_steps_is_tried_at_two_lengths(tmp_path):
    report = export(Pooled(2), pooled(steps=None, policy="any"), tmp_path / "m.pt")
    assert report.steps == [12, 19]
    assert "steps checked   12, 19" in str(report)


def test_a_network_of_one_length_is_not_of_any(tmp_path):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1))

    made = build([series("x", ["a", "b"], None, gapfill="none")])
    with pytest.raises(ExportError, match="19 steps: the eager network fails"):
        export(Flat(), made, tmp_path / "m.pt")
    export(
        Flat(), build([series("x", ["a", "b"], None, steps=12, gapfill="none")]), tmp_path / "m.pt"
    )


def test_padded_steps_that_give_nan_are_found(tmp_path):
    class Exact(Pooled):
        def forward(self, x: Tensor, doy: Tensor, valid: Tensor) -> Tensor:
            first = x[:, -1, :1] / valid[:, -1:]
            return self.head(torch.zeros(len(x), 8)) + first

    with pytest.raises(ExportError, match="padded steps"):
        export(Exact(2), pooled(), tmp_path / "m.pt")


def test_an_absent_sensor_is_tried(tmp_path):
    class Divided(nn.Module):
        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return ((x * mask).sum(1) / mask.sum(1)) @ torch.ones(2, 3)

    def made(optional):
        x = series("x", ["a", "b"], None, steps=40, gapfill="none")
        mask = validity("mask", "valid", granularity="band")
        return build([x, mask], sensors=[("S1", optional)])

    export(Divided(), made(False), tmp_path / "m.pt")
    with pytest.raises(ExportError, match="not finite"):
        export(Divided(), made(True), tmp_path / "m.pt")


def test_outputs_beside_the_classes(tmp_path):
    class Many(nn.Module):
        def forward(self, x: Tensor):
            pixel = x.mean(1).mean(-1).mean(-1)
            return pixel[:, :3], x.mean(1) / 0, pixel

    outputs = [output("y", "logits"), output("map", "aux"), output("e", "embedding", channels=4)]
    outputs[1].pop("channels")
    made = build([series("x", list("abcd"), None, grid=GRID)], window=5, outputs=outputs)
    export(Many(), made, tmp_path / "m.pt")
    results = [
        o["result"] for o in contracts.read(tmp_path / "m.pt").data["properties"]["mlm:output"]
    ]
    assert [r["shape"] for r in results] == [[-1, 3], [-1, 4, 5, 5], [-1, 4]]
    made["properties"]["mlm:output"][2]["result"]["shape"][1] = 5
    with pytest.raises(ExportError, match="mlm:output/2/result/shape"):
        export(Many(), made, tmp_path / "m.pt")


def test_patches_at_two_sizes(tmp_path):
    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x: Tensor, valid: Tensor) -> Tensor:
            weight = valid[:, :, None].to(x.dtype)
            return self.conv((x * weight).sum(1))

    x = series("x", ["a", "b"], None, gapfill="none")
    mask = validity("m", "valid", granularity="pixel", data_type="bool")
    made = build([x, mask], patch=16, halo=1)
    report = export(Conv(), made, tmp_path / "m.pt")
    assert report.sizes == [16, 20] and report.steps == [12, 19]
    probed = probe_halo(Conv().eval(), made)
    assert (probed.radius, probed.stride, probed.warnings) == (1, 1, [])


def test_trace_that_baked_the_number_of_steps_is_refused(tmp_path):
    class Baked(nn.Module):
        def forward(self, x):
            pick = lambda x: x.sum(1)  # noqa: E731
            return pick(x).repeat(1, 3) / int(x.shape[1])

    with pytest.raises(ExportError, match="baked into the trace"):
        export(Baked(), build([series("x", ["a"], None, gapfill="none")]), tmp_path / "m.pt")


def sampled(inputs, batch=64, **options):
    made = build(inputs, **options)
    generator = torch.Generator().manual_seed(1)
    return make_inputs(made, batch, 1, generator, gaps=True)


def test_inputs_agree_on_the_padding():
    x, doy, valid = sampled(
        [
            series("x", ["a"], None, steps=9, policy="max", gapfill="none", pad_value=-7),
            dates("doy", pad_value=-1),
            validity("v", "masked", data_type="uint8"),
        ]
    )
    padded = x[:, :, 0] == -7
    assert padded.any() and not padded[0].any() and not padded[:, 0].any()
    assert torch.equal(padded, doy == -1)
    assert bool((valid[padded] == 1).all()) and valid.dtype == torch.uint8
    assert bool(((valid == 0).sum(1) > 0).all())
    assert float(doy[~padded].min()) >= 1 and float(doy.max()) <= 366


def test_padding_at_the_start():
    (x,) = sampled(
        [series("x", ["a"], None, steps=9, policy="max", gapfill="none", pad_side="start")]
    )
    padded = x[:, :, 0] == 0
    assert padded.any() and not padded[:, -1].any()


@pytest.mark.parametrize("kind", ["doy", "days_since", "days_since_first", "month_index", "index"])
def test_dates_are_such_as_the_encoding_says(kind):
    reference = "2020-01-01" if kind == "days_since" else None
    _, d = sampled(
        [
            series("x", ["a"], None, steps=30, gapfill="none"),
            dates("d", kind, reference=reference, data_type="int64"),
        ]
    )
    assert d.dtype == torch.int64
    low, high = {"doy": (1, 366), "month_index": (0, 11), "index": (0, 29)}.get(kind, (0, 5000))
    assert low <= int(d.min()) and int(d.max()) <= high
    assert bool((d[:, 1:] >= d[:, :-1]).all())


def test_places_and_months():
    _, where, first = sampled([series("x", ["a"], None, gapfill="none"), latlon("ll"), month("m")])
    assert where.shape == (64, 2) and float(where[:, 0].abs().max()) <= 60
    assert first.shape == (64,) and set(first.tolist()) <= set(range(12))


# ---------------------------------------------------------------------------------------------
# Command line


def archive(path, contract):
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("m/data.pkl", "")
        stream.writestr("m/code/__torch__.py", "")
        stream.writestr("m/extra/mlm.json", contracts.to_text(contract))


def test_inspect_says_what_the_example_wants(tmp_path, capsys):
    with open(os.path.join(ROOT, "doc", "examples", "time-series.mlm.json")) as stream:
        archive(tmp_path / "m.pt", json.load(stream))
    assert main(["inspect", str(tmp_path / "m.pt")]) == 0
    text = capsys.readouterr().out
    for part in (
        "sensor 2     Sentinel-1 (optional)",
        "(B08 - B04) / (B08 + B04)",
        "25 steps, on a grid from 03-01 to 10-27 every 10 days",
        "up to 40 steps, padded with 0 at the end, gaps left",
        "doy: dates, [-1, 25], int64, doy, of s2",
        "by band, 1 is valid, of s1",
        "pixel by pixel, from a window of 5 x 5",
        "1 water, 2 crops, 3 forest",
    ):
        assert part in text, text
    assert "threshold" not in text


def test_validate_and_probe(tmp_path, capsys):
    export(Pooled(2), pooled(), tmp_path / "m.pt")
    assert main(["validate", str(tmp_path / "m.pt")]) == 0
    assert "all right" in capsys.readouterr().out
    assert main(["probe-halo", str(tmp_path / "m.pt")]) == 0
    assert "pixel by pixel" in capsys.readouterr().out
    assert main(["probe-halo", "--json", str(tmp_path / "m.pt")]) == 0
    assert "skipped" in json.loads(capsys.readouterr().out)
    with pytest.raises(ValueError, match="pixel by pixel"):
        probe_halo(Pooled(2), pooled())


def test_a_reader_that_leaves_is_no_error(tmp_path):
    archive(tmp_path / "m.pt", pooled())
    command = [sys.executable, "-u", "-m", "otbtorch", "inspect", str(tmp_path / "m.pt")]
    environment = {**os.environ, "PYTHONPATH": os.path.join(ROOT, "python")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()
