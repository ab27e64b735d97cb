"""Several predictions of a pixel: views of a patch, members of an ensemble, a smoothing window; and networks that begin where a regression ends.

The oracle is PyTorch over the whole mirrored image in double precision (test_oracle.py), turned
and averaged in NumPy; for the regression, the application that maps it by itself.
"""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from conftest import BIN, Scene, command, environment, margin, read, run, run_all, stripes, tiles
from conftest import make_arrays, make_scene, texture, write
from scipy import ndimage
from test_oracle import TOLERANCE, forward, load, network_inputs, padded, probabilities

CLOSE = 2e-5


def heads_of_views(module, contract, scene, valid, views):
    """Heads over the whole image of every view ``(symmetry, swap)``, laid back."""
    tiling = contract["properties"]["otb:tiling"]
    multiple, lead = tiling.get("multiple", 1), margin(tiling)
    height, width = valid.shape
    full = [-(-(n + 2 * lead) // multiple) * multiple for n in (height, width)]
    inputs = [padded(x, lead, *full) for x in network_inputs(contract, scene, valid)]
    cut = np.s_[:, lead : lead + height, lead : lead + width]
    for symmetry, swap in views:

        def turned(x, back=False):
            turns = symmetry % 4
            if back:
                x = np.rot90(x, -turns, axes=(1, 2))
                return x[:, :, ::-1] if symmetry >= 4 else x
            x = x[:, :, ::-1] if symmetry >= 4 else x
            return np.rot90(x, turns, axes=(1, 2))

        shown = [np.ascontiguousarray(turned(x)) for x in (inputs[::-1] if swap else inputs)]
        heads = {k: turned(v, True)[cut] for k, v in forward(module, contract, shown).items()}
        if swap and "sem1_logits" in heads:
            heads["sem1_logits"], heads["sem2_logits"] = heads["sem2_logits"], heads["sem1_logits"]
        yield heads


class Ordered(torch.nn.Module):
    """Change logits that depend on the order of the dates."""

    def forward(self, x1, x2):
        return x1[:, :1] - 1.7 * x2[:, 1:2] + 0.3 * x2[:, 3:]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Smaller than that of other files: there are many maps to be made."""
    return make_scene(tmp_path_factory.mktemp("scene"), 203, 147)


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    """The network in two models: with a scaling for each date, and with one for both."""
    from otbtorch import contract, export

    folder, one = tmp_path_factory.mktemp("ordered"), [dict(type="z-score", mean=1700, stddev=900)]
    other = [dict(type="z-score", mean=1500, stddev=700)]
    for name, scaling2 in (("apart", other), ("alike", one)):
        made = contract.change_detection(
            name, ["a", "b", "c", "d"], one, scaling2=scaling2, patch=64, halo=0, nodata=0,
            tta=["swap"], license="CC0-1.0", training_data="none",
        )  # fmt: skip
        export.export(torch.jit.script(Ordered()), made, folder / f"{name}.pt")
    return folder


VIEWS = {
    "none": [(0, False)],
    "swap": [(0, False), (0, True)],
    "d4": [(k, False) for k in range(8)],
}


def entropy(p):
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, -p * np.log(p), 0.0)
    return terms.sum(axis=0)


def averaged(predictions, threshold):
    """Probability, confidence and mutual information of several probabilities of change."""
    both = np.stack([np.stack([p, 1 - p]) for p in predictions])
    mean = both.mean(axis=0)
    information = entropy(mean) - np.mean([entropy(b) for b in both], axis=0)
    p = mean[0]
    return p, np.where(p >= threshold, p, 1 - p), information


def check(paths, p, conf, information, valid, threshold):
    found = read(paths["proba"]).astype(float)
    assert np.abs(found - np.where(valid, p, -1.0)).max() <= CLOSE
    two = read(paths["conf"]).astype(float)
    assert two.shape == (2,) + p.shape
    near = np.abs(p - threshold) < CLOSE
    assert np.abs(two[0] - np.where(valid, conf, -1.0))[~near].max() <= CLOSE
    assert np.abs(two[1] - np.where(valid, information, -1.0)).max() <= CLOSE
    out = np.where(valid, p >= threshold, 255)
    assert (read(paths["out"]) == out)[~near].all()


def calibration(contract):
    return contract["properties"]["otb:calibration"]


@pytest.mark.parametrize("tta", ["swap", "d4"])
def test_views_are_averaged_as_probabilities(tta, models, ordered, scene, tmp_path):
    from otbtorch import contract as contracts

    model = ordered / "apart.pt" if tta == "swap" else models / "unet.pt"
    contract, valid = contracts.read(model).data, scene.valid()
    c = calibration(contract)
    views = heads_of_views(load(model), contract, scene, valid, VIEWS[tta])
    predictions = [probabilities(h, c["temperature"])[0] for h in views]
    assert np.abs(predictions[0] - predictions[1])[valid].max() > 0.05, "views must differ"
    wanted = averaged(predictions, c["threshold"])
    paths, done = run_all(model, tmp_path, scene, outputs=ALL, tta=tta)
    check(paths, *wanted, valid, c["threshold"])
    assert f"{len(predictions)} view(s)" in done.text()


def test_swapped_class_heads_are_averaged_under_their_own_date(
    models, scene, contract_of, tmp_path
):
    contract, valid = contract_of("unet_sem.pt"), scene.valid()
    module, t = load(models / "unet_sem.pt"), calibration(contract_of("unet_sem.pt"))
    views = heads_of_views(module, contract, scene, valid, VIEWS["swap"])
    each = [probabilities(h, t["temperature"])[:3] for h in views]
    p, p1, p2 = (np.mean([e[k] for e in each], axis=0) for k in range(3))
    joint = p1[:, None] * p2[None]
    count = len(p1)
    equal = np.eye(count, dtype=bool)[..., None, None]
    changed = p >= t["threshold"]
    best = np.where(equal, np.where(changed, -1, joint), np.where(changed, joint, -1))
    order = np.sort(best.reshape(count * count, *p.shape), axis=0)
    sure = (order[-1] - order[-2] > CLOSE) & (np.abs(p - t["threshold"]) > CLOSE) & valid
    first, second = np.unravel_index(best.reshape(count * count, *p.shape).argmax(0), (count,) * 2)
    paths, _ = run_all(models / "unet_sem.pt", tmp_path, scene, tta="swap")
    assert np.abs(read(paths["proba"]) - np.where(valid, p, -1)).max() <= CLOSE
    out = np.where(changed, 1 + first * count + second, 0)
    assert sure.mean() > 0.4 and (read(paths["out"]) == out)[sure].all()
    classes = contract["properties"]["mlm:output"][1]["classification:classes"]
    values = np.array([k["value"] for k in classes])
    assert (read(paths["sem1"]) == values[first])[sure].all()
    assert (read(paths["sem2"]) == values[second])[sure].all()


def test_swap_makes_the_probability_blind_to_the_order_of_the_dates(ordered, tmp_path):
    """Both scaled alike, in files exchanged: bit for bit. Without it they differ."""
    x1, x2, _ = make_arrays(140, 120)
    a, b = write(tmp_path / "a.tif", x1, nodata=0), write(tmp_path / "b.tif", x2, nodata=0)
    found = {}
    for tta in ("none", "swap"):
        for name, pair in (("ab", (a, b)), ("ba", (b, a))):
            outputs = dict(out=tmp_path / "o.tif", proba=tmp_path / f"{tta}-{name}.tif")
            run(in1=pair[0], in2=pair[1], model=ordered / "alike.pt", tta=tta, **outputs).ok()
            found[tta, name] = read(outputs["proba"])
    assert (found["swap", "ab"] == found["swap", "ba"]).all()
    assert (found["none", "ab"] != found["none", "ba"]).any()


@pytest.mark.parametrize("turn", ["quarter", "mirror"])
def test_d4_turns_with_the_image(turn, models, tmp_path):
    """A scene turned by a quarter, or mirrored, gives the map turned likewise.

    Its sides are multiples of the network's stride: pooling begins at the upper left corner.
    """

    def turned(x):
        return np.ascontiguousarray(np.rot90(x, axes=(-2, -1)) if turn == "quarter" else x[..., ::-1])

    x1, x2, _ = make_arrays(160, 128)
    maps = {}
    for name, of in (("straight", lambda x: x), ("turned", turned)):
        a = write(tmp_path / f"{name}1.tif", of(x1), nodata=0)
        b = write(tmp_path / f"{name}2.tif", of(x2), nodata=0)
        for tta in ("none", "d4"):
            path = tmp_path / f"{name}-{tta}.tif"
            outputs = dict(out=tmp_path / "o.tif", proba=path)
            run(in1=a, in2=b, model=models / "unet.pt", tta=tta, **outputs).ok()
            maps[name, tta] = read(path)
    assert np.abs(turned(maps["straight", "d4"]) - maps["turned", "d4"]).max() < 1e-6
    assert np.abs(turned(maps["straight", "none"]) - maps["turned", "none"]).max() > 0.01


@pytest.fixture(scope="module")
def ensemble(models, tmp_path_factory):
    """A list of three networks of one interface, with temperatures 1.7, 1 and 1."""
    from otbtorch import export, testing
    from otbtorch.models.unet import SiameseUNet

    folder = tmp_path_factory.mktemp("ensemble")
    shutil.copy(models / "unet.pt", folder / "first.pt")
    _, made = testing.valid_models()["unet.pt"]
    for k, name in enumerate(("second", "third")):
        made["id"] = name
        module = testing.seeded(
            lambda: SiameseUNet(4, 8, testing.UNET_DEPTH), 40 + k, 4, heads=["decoder.head"]
        )
        made["properties"]["otb:calibration"]["temperature"] = 1.7 if k == 0 else 1.0
        export.export(module, made, folder / f"{name}.pt")
    listed = folder / "list.txt"
    listed.write_text("# members\nfirst.pt\nsecond.pt\n\nthird.pt\n")
    return listed


def test_an_ensemble_is_the_mean_of_its_members(ensemble, scene, contract_of, tmp_path):
    from otbtorch import contract as contracts

    valid, predictions = scene.valid(), []
    for name in ("first", "second", "third"):
        path = ensemble.parent / f"{name}.pt"
        own = contracts.read(path).data
        heads = next(heads_of_views(load(path), own, scene, valid, VIEWS["none"]))
        predictions.append(probabilities(heads, calibration(own)["temperature"])[0])
    threshold = calibration(contract_of("unet.pt"))["threshold"]
    wanted = averaged(predictions, threshold)
    assert wanted[2][valid].max() > 0.01
    names = ("out", "proba", "conf")
    paths, done = run_all(ensemble, tmp_path, scene, outputs=names)
    check(paths, *wanted, valid, threshold)
    assert "3 model(s)" in done.text()


def test_an_ensemble_of_one_is_the_model(models, small, tmp_path):
    (tmp_path / "one.txt").write_text(str(models / "unet.pt"))
    names = ("out", "proba", "conf")
    one, _ = run_all(tmp_path / "one.txt", tmp_path, small, outputs=names, prefix="one")
    own, _ = run_all(models / "unet.pt", tmp_path, small, prefix="own")
    assert all((read(one[n]) == read(own[n])).all() for n in names)


def smoothed(x, valid, sigma, radius):
    """Gaussian means over the pixels that are valid."""
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)

    def summed(x):
        for axis in (0, 1):
            x = ndimage.convolve1d(x, kernel / kernel.sum(), axis=axis, mode="constant")
        return x

    with np.errstate(divide="ignore", invalid="ignore"):
        return summed(np.where(valid, x, 0.0)) / summed(valid.astype(float))


@pytest.mark.parametrize("window", [3, 9])
def test_a_window_averages_the_probability_where_there_is_data(
    window, models, scene, contract_of, tmp_path
):
    """Against scipy on the map without a window, weighted by where there is data."""
    threshold = calibration(contract_of("unet.pt"))["threshold"]
    plain, _ = run_all(models / "unet.pt", tmp_path, scene, prefix="plain")
    paths, _ = run_all(models / "unet.pt", tmp_path, scene, window=window)
    p, valid = read(plain["proba"]).astype(float), scene.valid()
    smooth = smoothed(p, valid, (window - 1) / 6, window // 2)
    assert np.abs(read(paths["proba"]) - np.where(valid, smooth, -1.0)).max() < TOLERANCE
    near = np.abs(smooth - threshold) < TOLERANCE
    assert (read(paths["out"]) == np.where(valid, smooth >= threshold, 255))[~near].all()
    assert (read(paths["out"]) != read(plain["out"])).mean() > 0.001


@pytest.mark.parametrize("more", [dict(window=9), dict(blend="hann", window=5)], ids=str)
def test_members_that_agree_know_no_more_together_however_it_is_smoothed(
    more, models, scene, tmp_path
):
    for name in ("one", "other"):
        shutil.copy(models / "unet.pt", tmp_path / f"{name}.pt")
    (tmp_path / "list.txt").write_text("one.pt\nother.pt\n")
    paths, _ = run_all(tmp_path / "list.txt", tmp_path, scene, outputs=ALL, **more)
    information, valid = read(paths["conf"])[1], scene.valid()
    assert (information[~valid] == -1).all()
    assert np.abs(information[valid]).max() < 1e-6


# ---------------------------------------------------------------------------------------------
# The regression of the pair


class Says(torch.nn.Module):
    """Change logits that are what the application says of the pair."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def forward(self, x1, x2, r2, r1, s):
        if self.what == "score":
            return s
        length = torch.zeros_like(s)
        for r in (r2, r1):
            residual = r[:, :4] - r[:, 4:8] if self.what == "difference" else r[:, 12:]
            length = length + 0.5 * residual.square().sum(1, keepdim=True).sqrt()
        return length


@pytest.fixture(scope="module")
def regressed(tmp_path_factory):
    from otbtorch import contract, export

    folder = tmp_path_factory.mktemp("regressed")
    for what in ("score", "residual", "difference"):
        made = contract.change_detection(
            what, ["a", "b", "c", "d"], None, patch=64, halo=0, regression=True, nodata=0,
            license="CC0-1.0", training_data="none", tta=["swap", "d4"],
        )  # fmt: skip
        # More tolerant of a square root near 0 in single precision.
        export.export(torch.jit.script(Says(what)), made, folder / f"{what}.pt")
    return folder


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A pair whose second date follows from the first, but for blobs; with holes."""
    folder = tmp_path_factory.mktemp("changed")
    rng = np.random.default_rng(3)
    x1 = texture(rng, 4, 230, 310)
    x2 = 400 + 0.8 * x1[::-1] + 60 * rng.standard_normal(x1.shape)
    x2[:, 60:80, 100:130] += 1500
    x1[:, 30:40, 200:220] = 0
    x2[:, 150:170, 10:30] = 0
    x1, x2 = x1.astype(np.float32), x2.astype(np.float32)
    return Scene(write(folder / "1.tif", x1, nodata=0), write(folder / "2.tif", x2, nodata=0), x1, x2)


def likelihood(folder, scene, smooth):
    """The score of ChangeLikelihood's regression."""
    path = folder / "score.tif"
    words = command(in1=scene.in1, in2=scene.in2, estimator="regress", smooth=smooth, out=path)
    program = str(BIN / "otbcli_ChangeLikelihood")
    subprocess.run([program] + words, check=True, stdout=subprocess.DEVNULL, env=environment())
    return read(path).astype(float)


def logit(p):
    return np.log(p / (1 - p))


def test_a_network_is_told_the_score_that_changelikelihood_maps(regressed, changed, tmp_path):
    valid = changed.valid()
    paths, done = run_all(regressed / "score.pt", tmp_path, changed, outputs=["out", "proba"])
    score = smoothed(likelihood(tmp_path, changed, 0), valid, 2.5, 8)
    wanted = (score - score[valid].mean()) / score[valid].std()
    p = read(paths["proba"]).astype(float)
    assert (p[~valid] == -1).all()
    usable = valid & (np.abs(wanted) < 5)
    assert np.abs(logit(p[usable]) - wanted[usable]).max() < 2e-3
    assert "regression between the dates" in done.text()


@pytest.mark.parametrize("what", ["residual", "difference"])
def test_a_network_is_told_residuals_of_both_directions(what, regressed, changed, tmp_path):
    valid = changed.valid()
    paths, _ = run_all(regressed / f"{what}.pt", tmp_path, changed, outputs=["out", "proba"])
    score, p = likelihood(tmp_path, changed, 0), read(paths["proba"]).astype(float)
    usable = valid & (score < 5)
    assert usable.sum() > 0.9 * valid.sum()
    assert np.abs(logit(p[usable]) - score[usable]).max() < 2e-3


WAYS = {
    "ram8_tiles60": (tiles(60), dict(ram=8)),
    "one_thread": ("", dict(threads=1)),
    "stripes37": (stripes(37), dict(ram=16)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", ["score", "d4", "ensemble", "window", "sem"])
def test_maps_do_not_depend_on_how_they_are_made(
    case, way, regressed, ensemble, models, changed, scene, whole, tmp_path
):
    options, parameters = WAYS[way]
    model, on, names, more = CASES[case](regressed, ensemble, models, changed, scene)
    paths, _ = run_all(model, tmp_path, on, options, outputs=names, **dict(more, **parameters))
    for name, path in paths.items():
        assert read(path).tobytes() == whole(case)[name].tobytes(), name


@pytest.mark.parametrize("case", ["score", "window"])
def test_a_box_is_cut_from_the_whole(
    case, regressed, ensemble, models, changed, scene, whole, tmp_path
):
    model, on, names, more = CASES[case](regressed, ensemble, models, changed, scene)
    paths, _ = run_all(model, tmp_path, on, "?&box=37:53:150:120", outputs=names, **more)
    for name, path in paths.items():
        wanted = np.ascontiguousarray(whole(case)[name][..., 53:173, 37:187])
        assert read(path).tobytes() == wanted.tobytes(), name


ALL = ("out", "proba", "conf")
CASES = {
    "score": lambda r, e, m, c, s: (r / "score.pt", c, ALL, {}),
    "d4": lambda r, e, m, c, s: (m / "unet.pt", s, ALL, dict(tta="d4")),
    "ensemble": lambda r, e, m, c, s: (e, s, ALL, dict(tta="swap")),
    "window": lambda r, e, m, c, s: (m / "unet.pt", s, ALL, dict(window=11)),
    "sem": lambda r, e, m, c, s: (
        m / "unet_sem.pt", s, ALL + ("sem1", "sem2"), dict(tta="swap", window=5),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(regressed, ensemble, models, changed, scene, tmp_path_factory):
    """Function: ``{output: pixels}`` of a case in one block."""
    made = {}

    def reference(case):
        if case not in made:
            model, on, names, more = CASES[case](regressed, ensemble, models, changed, scene)
            folder = tmp_path_factory.mktemp("whole")
            paths, _ = run_all(model, folder, on, "?&streaming:type=none", outputs=names, **more)
            made[case] = {name: read(path) for name, path in paths.items()}
        return made[case]

    return reference


# ---------------------------------------------------------------------------------------------
# Errors


def refused(small, tmp_path, says, model, **parameters):
    done = run(in1=small.in1, in2=small.in2, model=model, out=tmp_path / "out.tif", **parameters)
    assert done.returncode != 0
    for words in says:
        assert words in done.text()
    assert not list(tmp_path.glob("out*"))


def test_what_is_not_allowed_is_refused(models, small, tmp_path, contract_of):
    unet = models / "unet.pt"
    refused(small, tmp_path, ["tta: found swap", "none, or d4"], models / "transition.pt", tta="swap")
    refused(small, tmp_path, ["tta: found d4", "lists no augmentation"], models / "prob.pt", tta="d4")
    refused(small, tmp_path, ["tta"], unet, tta="d8")
    refused(small, tmp_path, ["window: found 4", "odd"], unet, window=4)
    tiling = contract_of("unet.pt")["properties"]["otb:tiling"]
    most = 2 * (tiling["patch"] // 2 - margin(tiling) - tiling.get("multiple", 1)) + 1
    refused(small, tmp_path, ["window: found", "at most"], unet, window=2 * most + 41)
    for window in (999999, 2**31 - 1):
        refused(small, tmp_path, ["window: found", "at most"], unet, window=window)
        refused(small, tmp_path, ["window: found", "at most"], unet, window=window, blend="hann")
    done = run(in1=small.in1, in2=small.in2, model=unet, out=tmp_path / "w.tif", window=most)
    assert done.ok()


def test_a_member_of_another_kind_is_refused(models, small, tmp_path):
    (tmp_path / "list.txt").write_text(f"{models / 'unet.pt'}\n{models / 'transition.pt'}\n")
    refused(small, tmp_path, ["transition"], tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("# nothing\n")
    refused(small, tmp_path, ["no model in the list"], tmp_path / "list.txt")


def test_dates_of_different_bands_have_no_regression(small, regressed, tmp_path):
    from otbtorch import contract

    made = contract.read(regressed / "score.pt").data
    made["properties"]["mlm:input"][1]["bands"] = ["a", "b", "c", "e"]
    (tmp_path / "other.json").write_text(json.dumps(made))
    says = ["same bands at both"]
    refused(small, tmp_path, says, regressed / "score.pt", contract=tmp_path / "other.json")
