"""The map is the right one: compared with PyTorch and with independent formulas in NumPy.

Nothing here uses the grid of patches of the application in crop mode: the oracle runs the network
once over the whole image, mirrored at its borders. Blending is redone patch by patch, in NumPy.
The oracle computes in double precision: what differs from it is the application's own error.
"""

import copy
import json
from collections import namedtuple

import numpy as np
import pytest
import torch
from conftest import (
    NODATA,
    OUTPUTS,
    Scene,
    assert_fewest_calls,
    facts,
    margin,
    read,
    run,
    run_all,
    stripes,
    texture,
    write,
)

TOLERANCE = 1e-5
Decision = namedtuple("Decision", "maps close")


# ---------------------------------------------------------------------------------------------
# The oracle


def scaled(x, scaling):
    """``value_scaling`` of a contract, band by band."""
    if not scaling:
        return x.copy()
    scaling = scaling * len(x) if len(scaling) == 1 else scaling
    out = np.empty_like(x)
    for band, one in enumerate(scaling):
        v, kind = x[band], one["type"]
        if kind == "z-score":
            v = (v - np.float32(one["mean"])) / np.float32(one["stddev"])
        elif kind == "min-max":
            low, high = np.float32(one["minimum"]), np.float32(one["maximum"])
            v = (v - low) / (high - low)
        elif kind.startswith("clip"):
            v = np.clip(v, one.get("minimum", -np.inf), one.get("maximum", np.inf))
        elif kind == "offset":
            v = v - np.float32(one["value"])
        elif kind == "scale":
            v = v / np.float32(one["value"])
        else:
            raise ValueError(kind)
        out[band] = v
    return out


def network_inputs(contract, scene, valid):
    """What the network sees of each date, without margins."""
    inputs = []
    for entry, x in zip(contract["properties"]["mlm:input"], (scene.x1, scene.x2)):
        assert entry["otb:date"] == len(inputs) + 1
        with np.errstate(invalid="ignore"):
            y = scaled(x, entry["value_scaling"])
        inputs.append(np.where(valid, y, np.float32(entry.get("otb:nodata_fill", 0))))
    return inputs


def padded(x, before, height, width):
    """``x`` with mirrored margins: ``before`` above and to the left, ``height`` x ``width``."""
    after = (height - before - x.shape[1], width - before - x.shape[2])
    return np.pad(x, ((0, 0), (before, after[0]), (before, after[1])), mode="reflect")


def load(path):
    """A TorchScript network in double precision."""
    return torch.jit.load(str(path)).eval().double()


def forward(module, contract, arrays):
    """``{role: array (channels, H, W)}`` of one call."""
    with torch.no_grad():
        y = module(*(torch.from_numpy(a[None].astype(np.float64)) for a in arrays))
    entries = contract["properties"]["mlm:output"]
    if isinstance(y, torch.Tensor):
        y = [y]
    elif isinstance(y, dict):
        y = [y[e["name"]] for e in entries]
    return {e["otb:role"]: t[0].numpy() for e, t in zip(entries, y)}


def whole_image(module, contract, scene, valid):
    """The heads over the image in one call: crop mode must equal this."""
    tiling = contract["properties"]["otb:tiling"]
    multiple, lead = tiling.get("multiple", 1), margin(tiling)
    height, width = valid.shape
    full = [-(-(n + 2 * lead) // multiple) * multiple for n in (height, width)]
    inputs = [padded(x, lead, *full) for x in network_inputs(contract, scene, valid)]
    heads = forward(module, contract, inputs)
    cut = np.s_[:, lead : lead + height, lead : lead + width]
    return {role: head[cut] for role, head in heads.items()}


def softmax(z):
    e = np.exp(z - z.max(axis=0))
    return e / e.sum(axis=0)


def probabilities(heads, temperature):
    """Logits to probabilities: (change, classes of date 1, of date 2, transitions)."""
    if "transition_logits" in heads:
        t = softmax(heads["transition_logits"] / temperature)
        return 1.0 - t[0], None, None, t[1:]
    if "change_probability" in heads:
        change = heads["change_probability"][0]
    else:
        z = heads["change_logits"] / temperature
        change = 1.0 / (1.0 + np.exp(-(z[1] - z[0] if len(z) == 2 else z[0])))
    if "sem1_logits" not in heads:
        return change, None, None, None
    sem = [softmax(heads[role] / temperature) for role in ("sem1_logits", "sem2_logits")]
    return change, sem[0], sem[1], None


def blended(module, contract, scene, valid):
    """Probability of change from overlapping patches, averaged with a Hann window."""
    tiling = contract["properties"]["otb:tiling"]
    patch, step = tiling["patch"], tiling["patch"] // 2
    height, width = valid.shape
    rows, columns = -(-height // step) + 1, -(-width // step) + 1
    full = ((rows + 1) * step, (columns + 1) * step)
    inputs = [padded(x, step, *full) for x in network_inputs(contract, scene, valid)]
    window = np.sin(np.pi * (np.arange(patch) + 0.5) / patch) ** 2
    weight = np.outer(window, window)
    total, weights = np.zeros(full), np.zeros(full)
    temperature = contract["properties"]["otb:calibration"]["temperature"]
    for j in range(rows):
        for i in range(columns):
            at = np.s_[j * step : j * step + patch, i * step : i * step + patch]
            heads = forward(module, contract, [x[(slice(None),) + at] for x in inputs])
            total[at] += weight * probabilities(heads, temperature)[0]
            weights[at] += weight
    cut = np.s_[step : step + height, step : step + width]
    assert np.allclose(weights[cut], 1.0, atol=1e-12)
    return total[cut]


def classes_of(contract, role):
    for entry in contract["properties"]["mlm:output"]:
        if entry["otb:role"] == role:
            return np.array([c["value"] for c in entry["classification:classes"]])
    return None


def decide(contract, heads, valid, threshold=None):
    """All the maps from the heads, by the formulas of the joint posterior.

    ``close`` is where rounding may decide: at the threshold, or between the two best pairs.
    """
    calibration = contract["properties"]["otb:calibration"]
    threshold = calibration["threshold"] if threshold is None else threshold
    p, p1, p2, transitions = probabilities(heads, calibration["temperature"])
    changed = p >= threshold
    close = np.abs(p - threshold) < TOLERANCE
    maps = {"proba": p}
    if transitions is not None:
        values = [classes_of(contract, "transition_logits")] * 2
        count = len(values[0])
        best, order = transitions.argmax(axis=0), np.sort(transitions, axis=0)
        close |= changed & (order[-1] - order[-2] < TOLERANCE)
        first, second = best // count, best % count
        maps["conf"] = np.where(changed, order[-1], 1.0 - p)
        maps["sem1"] = np.where(changed, values[0][first], NODATA["sem1"])
        maps["sem2"] = np.where(changed, values[1][second], NODATA["sem2"])
        maps["out"] = np.where(changed, 1 + best, 0)
    elif p1 is not None:
        values = [classes_of(contract, role) for role in ("sem1_logits", "sem2_logits")]
        count = len(values[0])
        joint = (p1[:, None] * p2[None]).reshape(count * count, *p.shape)
        equal = np.eye(count, dtype=bool).ravel()
        same = joint[equal].sum(axis=0)
        allowed = np.where(equal[:, None, None], ~changed, changed)
        masked = np.where(allowed, joint, -1.0)
        best, order = masked.argmax(axis=0), np.sort(masked, axis=0)
        close |= order[-1] - order[-2] < TOLERANCE
        first, second = best // count, best % count
        pair = np.minimum(p, p * order[-1] / np.maximum(1.0 - same, 1e-12))
        maps["conf"] = np.where(changed, pair, 1.0 - p)
        maps["sem1"], maps["sem2"] = values[0][first], values[1][second]
        maps["out"] = np.where(changed, 1 + best, 0)
    else:
        maps["conf"] = np.where(changed, p, 1.0 - p)
        maps["out"] = changed.astype(int)
    return Decision({k: np.where(valid, v, NODATA[k]) for k, v in maps.items()}, close & valid)


def compare(paths, decision):
    """Asserts that files hold the maps of a decision."""
    assert decision.close.mean() < 0.01, "too many ties for a test"
    for name, path in paths.items():
        found, wanted = read(path).astype(np.float64), decision.maps[name]
        if name in ("proba", "conf"):
            # At the threshold the confidence is that of one side or of the other.
            difference = np.where(decision.close & (name == "conf"), 0, np.abs(found - wanted))
            assert difference.max() <= TOLERANCE, f"{name}: {difference.max()}"
        else:
            wrong = (found != wanted) & ~decision.close
            assert not wrong.any(), f"{name}: {wrong.sum()} pixels"


# ---------------------------------------------------------------------------------------------
# Runs


Result = namedtuple("Result", "contract paths heads valid run")


@pytest.fixture(scope="module")
def results(models, scene, contract_of, tmp_path_factory):
    """Function: files, heads and validity of a crop-mode model over the scene."""
    made = {}

    def result(model):
        if model not in made:
            contract, valid = contract_of(model), scene.valid()
            names = OUTPUTS.get(model, OUTPUTS["unet.pt"])
            folder = tmp_path_factory.mktemp("oracle")
            paths, done = run_all(models / model, folder, scene, outputs=names)
            module = load(models / model)
            heads = whole_image(module, contract, scene, valid)
            made[model] = Result(contract, paths, heads, valid, done)
        return made[model]

    return result


def side_car(tmp_path, contract):
    """Writes a contract; returns the path."""
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(contract))
    return path


CROP = ["unet.pt", "unet_sem.pt", "transition.pt", "twochannel.pt", "prob.pt", "dict.pt"]


@pytest.mark.parametrize("model", CROP)
def test_all_outputs_are_those_of_the_whole_image_in_one_call(model, results):
    r = results(model)
    decision = decide(r.contract, r.heads, r.valid)
    assert (decision.maps["out"][r.valid] > 0).mean() > 0.05
    compare(r.paths, decision)


def test_probability_is_that_of_the_eager_network(scene, results):
    """Not the exported file but the Python module that it was made from."""
    from otbtorch import testing

    r = results("unet.pt")
    module, contract = testing.valid_models()["unet.pt"]
    heads = whole_image(module.eval().double(), contract, scene, r.valid)
    compare({"proba": r.paths["proba"]}, decide(contract, heads, r.valid))


def test_blended_probability_is_that_of_overlapping_patches_in_numpy(
    models, scene, contract_of, tmp_path
):
    contract, valid = contract_of("attention.pt"), scene.valid()
    module = load(models / "attention.pt")
    paths, _ = run_all(models / "attention.pt", tmp_path, scene)
    p = blended(module, contract, scene, valid)
    wanted = np.where(valid, p, -1.0)
    assert np.abs(read(paths["proba"]) - wanted).max() <= TOLERANCE
    close = np.abs(p - 0.5) < TOLERANCE
    out = np.where(valid, p >= 0.5, 255)
    assert (read(paths["out"]) == out)[~close].all()
    conf = np.where(valid, np.maximum(p, 1 - p), -1.0)
    assert np.abs(read(paths["conf"]) - conf).max() <= TOLERANCE


def test_blend_parameter_overrides_the_contract(models, small, contract_of, tmp_path):
    """-blend hann of a model whose contract says crop."""
    contract, valid = contract_of("unet.pt"), small.valid()
    module = load(models / "unet.pt")
    paths, _ = run_all(models / "unet.pt", tmp_path, small, blend="hann")
    wanted = np.where(valid, blended(module, contract, small, valid), -1.0)
    assert np.abs(read(paths["proba"]) - wanted).max() <= TOLERANCE


@pytest.mark.parametrize("model", ["unet_sem.pt", "transition.pt"])
def test_every_class_occurs_at_each_date(model, results):
    """Otherwise the comparison of class maps would show little."""
    r = results(model)
    for name in ("sem1", "sem2"):
        found = set(np.unique(read(r.paths[name]))) - {255}
        role = "transition_logits" if model == "transition.pt" else f"{name}_logits"
        assert found == set(classes_of(r.contract, role)), name


def test_from_to_codes_agree_with_the_class_maps(results):
    """Code 1 + i K + j where changed, equal classes where not: no contradiction between maps."""
    r = results("unet_sem.pt")
    out, sem1, sem2 = (read(r.paths[n]).astype(int) for n in ("out", "sem1", "sem2"))
    values = list(classes_of(r.contract, "sem1_logits"))
    position = np.full(256, -1)
    position[values] = np.arange(len(values))
    changed = r.valid & (out > 0)
    code = 1 + position[sem1] * len(values) + position[sem2]
    assert (out[changed] == code[changed]).all()
    assert (sem1[changed] != sem2[changed]).all()
    same = r.valid & (out == 0)
    assert (sem1[same] == sem2[same]).all() and (sem1[same] != 255).all()


@pytest.mark.parametrize(
    "model, threshold", [("unet.pt", 0.3), ("unet_sem.pt", 0.7), ("transition.pt", 0.95)]
)
def test_threshold_parameter_moves_the_decision(
    model, threshold, models, scene, results, tmp_path
):
    r = results(model)
    paths, _ = run_all(models / model, tmp_path, scene, thr=threshold)
    decision = decide(r.contract, r.heads, r.valid, threshold)
    default = decide(r.contract, r.heads, r.valid)
    assert (decision.maps["out"] != default.maps["out"]).mean() > 0.05
    compare(paths, decision)


def test_temperature_and_threshold_of_a_contract_are_applied(
    models, scene, results, tmp_path
):
    r = results("unet_sem.pt")
    contract = copy.deepcopy(r.contract)
    contract["properties"]["otb:calibration"] = {"temperature": 2.5, "threshold": 0.4}
    paths, done = run_all(
        models / "unet_sem.pt", tmp_path, scene, contract=side_car(tmp_path, contract)
    )
    assert "at or above 0.4 (contract), temperature 2.5" in done.log
    compare(paths, decide(contract, r.heads, r.valid))


SCALINGS = {
    "null": None,
    "none": [],
    "min-max": [{"type": "min-max", "minimum": -2.0, "maximum": 1.5}],
    "clip": [{"type": "clip", "minimum": -0.5, "maximum": 0.75}],
    "clip-min": [{"type": "clip-min", "minimum": -0.5}],
    "clip-max": [{"type": "clip-max", "maximum": 0.75}],
    "offset": [{"type": "offset", "value": 0.6}],
    "scale": [{"type": "scale", "value": 2.5}],
    "one a band": [
        {"type": "scale", "value": -0.9},
        {"type": "min-max", "minimum": 0.0, "maximum": 3.0},
        {"type": "z-score", "mean": 0.5, "stddev": 1.7},
        {"type": "offset", "value": -1.0},
    ],
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_value_scaling_is_the_one_of_the_contract(kind, models, contract_of, tmp_path):
    """Date 1 is raw, so that a scaling applied to the wrong date is seen as well."""
    rng = np.random.default_rng(4)
    x1, x2 = (rng.standard_normal((4, 70, 90)).astype(np.float32) for _ in range(2))
    scene = Scene(write(tmp_path / "1.tif", x1), write(tmp_path / "2.tif", x2), x1, x2)
    contract = contract_of("prob.pt")
    contract["properties"]["mlm:input"][0]["value_scaling"] = None
    contract["properties"]["mlm:input"][1]["value_scaling"] = SCALINGS[kind]
    path = side_car(tmp_path, contract)
    names = ["out", "proba"]
    paths, _ = run_all(models / "prob.pt", tmp_path, scene, outputs=names, contract=path)
    heads = whole_image(load(models / "prob.pt"), contract, scene, scene.valid())
    compare(paths, decide(contract, heads, scene.valid()))


# ---------------------------------------------------------------------------------------------
# No-data


@pytest.mark.parametrize("model", ["unet.pt", "unet_sem.pt"])
def test_no_data_is_at_exactly_the_pixels_without_data(model, results):
    r = results(model)
    for name, path in r.paths.items():
        assert ((read(path) == NODATA[name]) == ~r.valid).all(), name


@pytest.mark.parametrize("model", ["unet_sem.pt", "transition.pt"])
def test_each_file_declares_its_own_no_data_and_not_the_input_s(model, results, scene):
    """The input declares 0, which in the map means "no change"."""
    assert facts(scene.in1).nodata == 0
    for name, path in results(model).paths.items():
        assert facts(path).nodata == NODATA[name], name
        assert facts(path).bands == 1


def test_model_calls_are_those_of_the_patches_with_data(results, scene, tiling_of):
    for model in CROP:
        assert_fewest_calls(results(model).run, tiling_of(model), scene.valid())


def nodata_scene(folder, declared, values):
    """A scene where ``values`` ({value: (bands, rows)}) are set at date 1."""
    rng = np.random.default_rng(5)
    x1, x2 = texture(rng, 4, 90, 110), texture(rng, 4, 90, 110)
    for value, (bands, rows) in values.items():
        x1[bands, rows, 20:60] = value
    return Scene(
        write(folder / "n1.tif", x1, nodata=declared), write(folder / "n2.tif", x2), x1, x2
    )


def test_no_data_that_a_file_declares_replaces_that_of_the_contract(models, tmp_path):
    """0 is data then, as the file says."""
    every = slice(None)
    scene = nodata_scene(tmp_path, -9999, {-9999.0: (every, 30), 0.0: (every, slice(60, 62))})
    paths, _ = run_all(models / "pixel.pt", tmp_path, scene, outputs=["out"])
    valid = np.ones((90, 110), bool)
    valid[30, 20:60] = False
    assert ((read(paths["out"]) == 255) == ~valid).all()


def test_no_data_of_the_contract_holds_where_a_file_declares_none(models, tmp_path):
    every = slice(None)
    scene = nodata_scene(tmp_path, None, {0.0: (every, 30), -9999.0: (every, 60)})
    paths, _ = run_all(models / "pixel.pt", tmp_path, scene, outputs=["out"])
    assert ((read(paths["out"]) == 255) == ~scene.valid()).all()
    assert not scene.valid()[30, 40] and scene.valid()[60, 40]


@pytest.mark.parametrize("rule", ["all", "any"])
def test_no_data_rule_counts_bands(rule, models, contract_of, tmp_path):
    scene = nodata_scene(tmp_path, None, {0.0: (slice(0, 2), slice(30, 40))})
    contract = contract_of("pixel.pt")
    for entry in contract["properties"]["mlm:input"]:
        entry["otb:nodata_rule"] = rule
    path = side_car(tmp_path, contract)
    paths, _ = run_all(models / "pixel.pt", tmp_path, scene, outputs=["out"], contract=path)
    assert ((read(paths["out"]) == 255) == ~scene.valid(rule=rule)).all()
    assert scene.valid(rule=rule).all() == (rule == "all")


def test_no_data_fill_is_what_the_network_sees(models, scene, contract_of, tmp_path):
    """Another fill changes the neighbours of no-data pixels, as it does in PyTorch."""
    contract, valid = contract_of("unet.pt"), scene.valid()
    for entry, fill in zip(contract["properties"]["mlm:input"], (1.5, -2.0)):
        entry["otb:nodata_fill"] = fill
    path = side_car(tmp_path, contract)
    paths, _ = run_all(
        models / "unet.pt", tmp_path, scene, outputs=["out", "proba"], contract=path
    )
    module = load(models / "unet.pt")
    heads = whole_image(module, contract, scene, valid)
    filled = decide(contract, heads, valid)
    heads = whole_image(module, contract_of("unet.pt"), scene, valid)
    assert np.abs(filled.maps["proba"] - decide(contract, heads, valid).maps["proba"]).max() > 0.1
    compare(paths, filled)


def test_images_without_any_data_succeed_without_a_model_call(models, tmp_path, tiling_of):
    zeros = np.zeros((4, 130, 170), np.float32)
    images = [write(tmp_path / f"z{k}.tif", zeros) for k in (1, 2)]
    scene = Scene(images[0], images[1], zeros, zeros)
    for model in ("unet_sem.pt", "attention.pt"):
        paths, done = run_all(models / model, tmp_path, scene)
        inferred, empty, repeated, calls, minimum = done.patches()
        assert (inferred, repeated, calls, minimum) == (0, 0, 0, 0)
        assert_fewest_calls(done, tiling_of(model), scene.valid())
        for name, path in paths.items():
            assert (read(path) == NODATA[name]).all(), name


# ---------------------------------------------------------------------------------------------
# Networks that give NaN


@pytest.fixture(scope="module")
def hot(tmp_path_factory):
    """A scene where ``nan.pt`` gives NaN at some pixels, one of them without data anyway."""
    from otbtorch import testing

    folder = tmp_path_factory.mktemp("hot")
    rng = np.random.default_rng(6)
    x1, x2 = texture(rng, 4, 150, 190), texture(rng, 4, 150, 190)
    x1[0, 40:43, 60:70] = 20000
    x1[0, 149, 189] = 20000
    x1[0, 0, 0] = 20000
    x2[:, 0, 0] = 0
    bad = (x1[0] - 1105.0) / 1809.0 > testing.NAN_ABOVE
    assert bad.sum() == 32
    return Scene(write(folder / "1.tif", x1), write(folder / "2.tif", x2), x1, x2), bad


@pytest.mark.parametrize("blend", ["crop", "hann"])
@pytest.mark.parametrize("options", ["", stripes(9)], ids=["whole", "stripes"])
def test_pixels_where_the_model_gives_nan_are_counted_and_become_no_data(
    blend, options, hot, models, tmp_path
):
    scene, bad = hot
    names = ["out", "proba", "conf"]
    more = dict(outputs=names, blend=blend)
    paths, done = run_all(models / "nan.pt", tmp_path, scene, options, **more)
    warnings = [w for w in done.warnings() if "NaN" in w]
    assert len(warnings) == 1 and " 31 valid pixels" in warnings[0], done.log
    for name, path in paths.items():
        assert ((read(path) == NODATA[name]) == (bad | ~scene.valid())).all(), name


# ---------------------------------------------------------------------------------------------
# Arithmetic and arguments


@pytest.mark.parametrize(
    "model, worst, usual", [("pixel.pt", 0.05, 0.05), ("unet.pt", 0.25, 0.05)]
)
def test_bf16_differs_little_from_fp32(model, worst, usual, models, scene, tmp_path):
    """``usual`` bounds the mean. Random weights make steep logits: the deep network has tails."""
    maps = []
    for precision in ("fp32", "bf16"):
        paths, done = run_all(
            models / model,
            tmp_path,
            scene,
            outputs=["out", "proba"],
            prefix=precision,
            precision=precision,
        )
        assert f", {precision}," in done.log
        maps.append(read(paths["proba"]))
    assert ((maps[0] == -1) == (maps[1] == -1)).all()
    difference = np.abs(maps[0] - maps[1])
    assert 0 < difference.max() < worst
    assert difference.mean() < usual


def test_forward_order_does_not_change_which_file_is_which_date(
    models, small, tmp_path
):
    """A network forward(later, earlier): in1 is date 1 all the same, scaled as date 1."""
    from otbtorch import export, testing

    class Reversed(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, later: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
            return self.net(earlier, later)

    net, contract = testing.valid_models()["transition.pt"]
    contract = copy.deepcopy(contract)
    contract["properties"]["otb:method"]["forward"] = ["x2", "x1"]
    export(Reversed(net).eval(), contract, str(tmp_path / "reversed.pt"))
    names = ["out", "proba"]
    paths, _ = run_all(tmp_path / "reversed.pt", tmp_path, small, outputs=names)
    straight, _ = run_all(models / "transition.pt", tmp_path, small, outputs=names, prefix="s")
    assert (read(paths["out"]) == read(straight["out"])).all()
    assert np.abs(read(paths["proba"]) - read(straight["proba"])).max() <= TOLERANCE
    swapped = Scene(small.in2, small.in1, small.x2, small.x1)
    other, _ = run_all(models / "transition.pt", tmp_path, swapped, outputs=names, prefix="o")
    assert np.abs(read(other["proba"]) - read(straight["proba"])).max() > 0.1


@pytest.mark.parametrize(
    "count, kind, nodata", [(15, "Byte", 255), (16, "UInt16", 65535), (20, "UInt16", 65535)]
)
def test_codes_of_many_classes_are_written_as_uint16(count, kind, nodata, small, tmp_path):
    """16 classes a date make codes up to 256, where 8 bits need 255 for no-data."""
    from otbtorch import export, output, testing

    class Many(torch.nn.Module):
        def __init__(self):
            super().__init__()
            make = testing.PixelCD
            self.change = testing.seeded(lambda: make(4), 21, 4, heads=["head"])
            self.sem1 = testing.seeded(lambda: make(4, 8, count), 22, 4, heads=["head"])
            self.sem2 = testing.seeded(lambda: make(4, 8, count), 23, 4, heads=["head"])

        def forward(self, x1: torch.Tensor, x2: torch.Tensor):
            return self.change(x1, x2), self.sem1(x1, x2), self.sem2(x1, x2)

    classes = [(k + 10, f"class {k}", "102030") for k in range(count)]
    outputs = [
        output("change", "change_logits"),
        output("sem1", "sem1_logits", classes=classes),
        output("sem2", "sem2_logits", classes=classes),
    ]
    contract = testing._contract("many", 64, 0, outputs)
    module = Many().eval()
    export(module, contract, str(tmp_path / "many.pt"))
    names = ["out", "proba", "sem1", "sem2", "conf"]
    paths, done = run_all(tmp_path / "many.pt", tmp_path, small, outputs=names)
    assert ("out is written as uint16" in done.log) == (kind == "UInt16")
    assert (facts(paths["out"]).kind, facts(paths["out"]).nodata) == (kind, nodata)
    assert (facts(paths["sem1"]).kind, facts(paths["sem1"]).nodata) == ("Byte", 255)
    valid = small.valid()
    assert ((read(paths["out"]) == nodata) == ~valid).all()
    assert count < 20 or read(paths["out"])[valid].max() > 255
    decision = decide(contract, whole_image(module.double(), contract, small, valid), valid)
    decision.maps["out"] = np.where(valid, decision.maps["out"], nodata)
    compare(paths, decision)


def test_one_band_images_work(models, small, tmp_path):
    done = run(
        in1=f"{small.in1}?&bands=1",
        in2=f"{small.in2}?&bands=1",
        model=models / "oneband.pt",
        out=tmp_path / "out.tif",
    ).ok()
    assert done.patches()[0] > 0
    assert (read(tmp_path / "out.tif") < 2).any()
