"""Maps of change likelihood do not depend on how they are made.

Every comparison is of all pixels, bit for bit, with one run in one block on two threads. Runs of
an estimator are made together.
"""

import json

import numpy as np
import pytest
from conftest import grid_counts, stripes, tiles, write
from likelihood import CASES, case_parameters, holes, likelihood_models, maps, outputs_of, same
from sits import together

__all__ = ["holes", "likelihood_models"]  # fixtures

ONE_BLOCK = "?&streaming:type=none"
WINDOW = (37, 53, 211, 189)
CORNER = (300, 250, 31, 37)

# Name: options of the outputs, parameters, which outputs (None: all), a window.
WAYS = {
    "ram 8": ("", dict(ram=8), None, None),
    "tiles of 64, ram 8, one thread": (tiles(64), dict(ram=8, threads=1), None, None),
    "stripes, ram 1024": (stripes(17), dict(ram=1024), None, None),
    "window in tiles of 100": (tiles(100), dict(ram=256), None, WINDOW),
    "out alone in stripes": (stripes(31), dict(ram=8), ["out"], None),
    "corner of the last two, one thread": ("", dict(threads=1), [-2, -1], CORNER),
}
MORE = {
    "one thread": (ONE_BLOCK, dict(threads=1), None, None),
    "ram 1": ("", dict(ram=1), None, None),
    "ram 256": ("", dict(ram=256), None, None),
    "ram 1024": ("", dict(ram=1024), None, None),
    "tiles of 64": (tiles(64), {}, None, None),
    "tiles of 100": (tiles(100), {}, None, None),
    "stripes of 7": (stripes(7), {}, None, None),
    "batch of 3": ("", dict(batch=3), None, None),
    "window in stripes": (stripes(17), {}, None, WINDOW),
    "out alone": (ONE_BLOCK, {}, ["out"], None),
    "out alone in tiles": (tiles(64), {}, ["out"], None),
    "a window of out alone": (tiles(64), {}, ["out"], WINDOW),
    "pvalue": ("", {}, ["pvalue"], None),
    "change": ("", {}, ["change"], None),
    "which": ("", {}, ["which"], None),
}
THOROUGH = ["regress", "pmi"]  # of each of the two kinds of scores
RANDOM = [name for name, case in CASES.items() if case[2]]


def chosen(case, wanted):
    """Outputs of a way: ``out`` is always made."""
    every = outputs_of(case)
    names = every if wanted is None else [n if isinstance(n, str) else every[n] for n in wanted]
    return list(dict.fromkeys(["out"] + names))


@pytest.fixture(scope="module")
def results(likelihood_models, holes, tmp_path_factory):
    """Function: ``{way: maps}`` of a case, and "reference"."""
    made = {}

    def of(case):
        if case in made:
            return made[case]
        folder = tmp_path_factory.mktemp(case)
        parameters = dict(case_parameters(case, likelihood_models), **holes.parameters())
        ways = dict(WAYS, **(MORE if case in THOROUGH else {}))
        ways["reference"] = ("", {}, None, None)
        ways["seed"] = (ONE_BLOCK, dict(seed=7), ["out"], None)

        def job(name, options, more, wanted, window):
            box = "&box=" + ":".join(map(str, window)) if window else ""
            options = options or ("?" if box else "")
            here = folder / name.replace(" ", "_").replace(",", "")
            return lambda: maps(here, chosen(case, wanted), options + box, **parameters, **more)

        runs = together({name: job(name, *way) for name, way in ways.items()})
        made[case] = runs
        return runs

    return of


@pytest.mark.parametrize("case", CASES)
def test_reference_holds_data_and_no_data(case, results, holes):
    """Otherwise the comparisons below would show little."""
    found, done = results(case)["reference"]
    assert done.blocks() == 1
    valid = holes.valid()
    assert ((found["out"] != -9999) == valid).all()
    assert ((found["pvalue"] != -1) == valid).all()
    assert ((found["change"] != 255) == valid).all()
    assert set(np.unique(found["change"][valid])) == {0, 1}
    assert np.isfinite(found["out"]).all() and found["out"][valid].std() > 0
    if CASES[case][3]:
        assert ((found["which"] != 255) == valid).all()
        assert set(np.unique(found["which"][valid])) == {1, 2}


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case[0]])
def test_each_patch_is_inferred_once(case, results, holes, likelihood_models):
    """Whatever part of the maps is asked for: statistics are those of the scene."""
    from otbtorch import contract

    tiling = contract.read(likelihood_models / CASES[case][0]).data["properties"]["otb:tiling"]
    wanted = grid_counts(tiling, holes.valid())
    for way in ("reference", "window in tiles of 100", "tiles of 64, ram 8, one thread"):
        inferred, empty, repeated, calls, minimum = results(case)[way][1].patches()
        assert (inferred, empty, repeated) == (*wanted, 0), way


@pytest.mark.parametrize("case", ["pmi", "ratio", "feature"])
def test_model_calls_are_counted_as_batches_are(case, results):
    done = results(case)["reference"][1]
    _, _, _, calls, minimum = done.patches()
    assert calls == minimum, done.log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_maps_are_the_same(case, way, results):
    found, done = results(case)[way]
    same(found, results(case)["reference"][0], WAYS[way][3])
    if "streaming" in WAYS[way][0]:
        assert done.blocks() > 1, done.log


@pytest.mark.parametrize("way", MORE)
@pytest.mark.parametrize("case", THOROUGH)
def test_maps_are_the_same_in_many_more_ways(case, way, results):
    found, done = results(case)[way]
    same(found, results(case)["reference"][0], MORE[way][3])
    if "streaming" in MORE[way][0] and MORE[way][0] != ONE_BLOCK:
        assert done.blocks() > 1, done.log


@pytest.mark.parametrize("case", CASES)
def test_seed_changes_random_estimators_and_only_these(case, results):
    one, other = (results(case)[way][0]["out"] for way in ("reference", "seed"))
    valid = one != -9999
    assert ((other != -9999) == valid).all()
    if case in RANDOM:
        assert (one != other)[valid].mean() > 0.9
        assert np.corrcoef(one[valid], other[valid])[0, 1] > 0.3, "both are scores of this pair"
    else:
        same(dict(out=other), dict(out=one))


@pytest.mark.parametrize("case", ["regress", "pmi"])
def test_two_runs_give_the_same_bytes(case, likelihood_models, holes, tmp_path):
    parameters = dict(case_parameters(case, likelihood_models), **holes.parameters())
    for k in "ab":
        maps(tmp_path, outputs_of(case), prefix=k, **parameters)
    for name in outputs_of(case):
        first, second = (tmp_path / f"{k}{name}.tif" for k in "ab")
        assert first.read_bytes() == second.read_bytes(), name


# ---------------------------------------------------------------------------------------------
# What a scene taught, applied to a part of it

# Case: pixels from the part's border that may differ.
FITTED = {"regress": 40, "student": 40, "cva": 8, "mad": 8, "irmad": 8, "ratio": 56}
PART = (20, 10, 290, 260)


@pytest.mark.parametrize("case", ["siroc", "pmi", "denoise", "recon", "feature"])
def test_a_scene_with_its_own_fit_gives_its_maps(case, likelihood_models, holes, tmp_path):
    parameters = dict(case_parameters(case, likelihood_models), **holes.parameters())
    fit = tmp_path / "fit.json"
    made = [maps(tmp_path / k, outputs_of(case), fit=fit, **parameters)[0] for k in "ab"]
    same(made[1], made[0])


@pytest.mark.parametrize("case", FITTED)
def test_a_part_with_the_fit_of_the_whole_gives_its_pixels(
    case, likelihood_models, holes, tmp_path
):
    """Away from the part's border: other pixels are mirrored there."""
    x, y, w, h = PART
    rows, columns = slice(y, y + h), slice(x, x + w)
    part = {}
    for name, pixels in (("in1", holes.x1), ("in2", holes.x2), ("mask", holes.m[None])):
        transform = (500000.0 + 10 * x, 10.0, 0.0, 4800000.0 - 10 * y, 0.0, -10.0)
        nodata = None if name == "mask" else 0
        kept = pixels[:, rows, columns].astype(np.float32)
        part[name] = write(tmp_path / f"{name}.tif", kept, transform=transform, nodata=nodata)
    parameters = case_parameters(case, likelihood_models)
    names = outputs_of(case)
    fit = tmp_path / "fit.json"
    whole, first = maps(tmp_path / "whole", names, fit=fit, **parameters, **holes.parameters())
    assert json.loads(fit.read_text())["settings"]["estimator"] == parameters["estimator"]
    kept = fit.read_bytes()
    again, second = maps(tmp_path / "again", names, fit=fit, **parameters, **holes.parameters())
    same(again, whole)
    cut, third = maps(tmp_path / "part", names, fit=fit, **parameters, **part)
    assert fit.read_bytes() == kept
    assert "kept in" in first.log and "taken from" in second.log and "taken from" in third.log
    border = FITTED[case]
    inside = (slice(border, h - border), slice(border, w - border))
    for name in names:
        found, wanted = cut[name][inside], whole[name][rows, columns][inside]
        assert found.size > 900
        if name in ("change", "which"):
            assert (found == wanted).mean() > 0.9995, name
        else:
            assert np.allclose(found, wanted, rtol=1e-3, atol=1e-4), name
            assert (wanted != (-9999 if name == "out" else -1)).mean() > 0.3
    alone, _ = maps(tmp_path / "alone", ["out"], **parameters, **part)
    assert not np.allclose(alone["out"], cut["out"], rtol=1e-3), "the fit is of use"
