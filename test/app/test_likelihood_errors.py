"""What goes wrong with change likelihood is said clearly, and leaves nothing behind.

A message names the option, what was found and what was expected. All runs of ``CASES`` are made
together, each with a folder of its own for what it writes.
"""

import json
import shutil

import numpy as np
import pytest
from conftest import TRANSFORM, read, write
from likelihood import BANDS, likelihood_models, maps, pair, run, write_pair
from sits import together
from test_errors import assert_refused, limited

__all__ = ["likelihood_models"]  # fixtures

WIDTH, HEIGHT, DATES = 130, 110, 9
NAMES = [f"s_{2019 + k // 4}{1 + 3 * (k % 4):02d}15.tif" for k in range(DATES)]


@pytest.fixture(scope="module")
def place(likelihood_models, models, tmp_path_factory):
    """Folder of small images, models, and what went wrong with files."""
    folder = tmp_path_factory.mktemp("errors")
    rng = np.random.default_rng(5)
    x1, x2, _ = pair(rng, HEIGHT, WIDTH)
    write_pair(folder, x1, x2)
    write(folder / "two.tif", x2[:2], nodata=0)
    write(folder / "shifted.tif", x2, transform=(500005.0,) + TRANSFORM[1:], nodata=0)
    write(folder / "bare1.tif", x1, epsg=None, nodata=0)
    coarse = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    write(folder / "coarse.tif", x2[:, ::2, ::2], transform=coarse, nodata=0)
    write(folder / "bare2.tif", x2[:, ::2, ::2], transform=coarse, epsg=None, nodata=0)
    write(folder / "small.tif", x2[:, :50], nodata=0)
    for name in ("flow", "nograd", "ratio", "epsilon", "encoder", "mae", "gauss"):
        shutil.copy(likelihood_models / f"{name}.pt", folder)
    shutil.copy(models / "pixel.pt", folder)
    (folder / "corrupt.pt").write_bytes(b"PK\3\4" + bytes(100))
    data = (likelihood_models / "flow.pt").read_bytes()
    (folder / "truncated.pt").write_bytes(data[: len(data) // 2])
    (folder / "corrupt.json").write_text('{"settings": ')
    (folder / "empty.json").touch()
    (folder / "other.json").write_text('{"a": [1, 2]}')
    (folder / "list.json").write_text("[1, 2]")
    parameters = dict(in1=folder / "1.tif", in2=folder / "2.tif")
    made = folder / "made"
    for name, more in {
        "regress": {},
        "cva": dict(estimator="cva"),
        "smooth1": dict(smooth=1),
        "flow": dict(model=folder / "flow.pt", levels=2),
    }.items():
        options = dict(calibrate=folder / f"{name}.cal.json", fit=folder / f"{name}.fit.json")
        if name == "flow":
            options["smooth"] = 1
        maps(made, ["out"], **parameters, **options, **more)
    calibration = json.loads((folder / "regress.cal.json").read_text())
    for name, change in {
        "unsorted": {"quantiles": calibration["quantiles"][::-1]},
        "nonumbers": {"quantiles": ["a", "b"]},
        "nocount": {"count": 0},
        "nogroup": {"stddev": []},
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(dict(calibration, **change)))
    fit = json.loads((folder / "regress.fit.json").read_text())
    broken = json.loads(json.dumps(fit))
    broken["score"]["directions"][0]["weights"] = [[1.0]]
    (folder / "weights.json").write_text(json.dumps(broken))
    (folder / "groups.json").write_text(json.dumps(dict(fit, mean=[], stddev=[])))
    for k, name in enumerate(NAMES):
        gain = 1 + 0.01 * k
        write(folder / name, gain * x1 + 50 * rng.standard_normal(x1.shape), nodata=0)
    dates = [n[2:10] for n in NAMES]
    (folder / "dates.txt").write_text("\n".join(dates))
    (folder / "twice.txt").write_text("\n".join(dates[:-1] + dates[:1]))
    (folder / "wrong.txt").write_text("\n".join(dates[:-1] + ["20191399"]))
    (folder / "few.txt").write_text("\n".join(dates[:7]))
    (folder / "empty.txt").touch()
    write(folder / "stack.tif", np.tile(x1, (DATES, 1, 1))[: DATES * BANDS], nodata=0)
    write(folder / "masks.tif", np.zeros((DATES, HEIGHT, WIDTH), np.uint8))
    write(folder / "mask.tif", np.ones((HEIGHT, WIDTH), np.uint8))
    shutil.rmtree(made)
    return folder


SERIES = {"in1": None, "in2": None, "il": NAMES}
STACK = {"in1": None, "in2": None, "il": "stack.tif", "dates": "dates.txt"}
AGREE = ["one made with the settings of this run"]

# Name: fragments of the message, what is given beside in1, in2 and out (None: left out). Names of
# files are those of the folder of images where they exist there, else those of what is written.
CASES = {
    # What is given
    "neither": (["in1: found neither a pair nor a series", "il"], dict(in1=None, in2=None)),
    "both": (["il: found in1 or in2 as well"], dict(il=NAMES)),
    "one date": (["in2: found nothing", "the image of that date"], dict(in2=None)),
    "other date": (["in1: found nothing", "the image of that date"], dict(in1=None)),
    # Models
    "task": (["model: found a model of task change-detection"], dict(model="pixel.pt")),
    "corrupt model": (["corrupt.pt", "TorchScript file"], dict(model="corrupt.pt")),
    "truncated model": (["truncated.pt", "TorchScript file"], dict(model="truncated.pt")),
    "absent model": (["absent.pt", "a TorchScript file"], dict(model="absent.pt")),
    "no model": (["estimator: found pmi without a model", "-model"], dict(estimator="pmi")),
    "ratio without a model": (["ratio without a model"], dict(estimator="ratio")),
    "pmi without condition": (
        ["estimator: found pmi with a model that takes no condition", "can serve latent"],
        dict(model="epsilon.pt", estimator="pmi"),
    ),
    "cond of an encoder": (
        ["cond with a model that does not denoise", "can serve feature"],
        dict(model="encoder.pt", estimator="cond"),
    ),
    "mae of a flow": (
        ["mae with a model that is no masked autoencoder"],
        dict(model="flow.pt", estimator="mae"),
    ),
    "ratio of a flow": (
        ["estimator: found ratio with a model that is not a density ratio", "otb:ratio"],
        dict(model="flow.pt", estimator="ratio"),
    ),
    "features of none": (
        ["feature with a model that gives no features"],
        dict(model="epsilon.pt", estimator="feature"),
    ),
    "pmi of a ratio": (
        ["pmi with a model that does not denoise"],
        dict(model="ratio.pt", estimator="pmi"),
    ),
    "no gradient": (
        ["cannot be differentiated", "torch.no_grad"],
        dict(model="nograd.pt", estimator="loglik"),
    ),
    "logsnr high": (
        ["logsnr: found -6 to 9.5", "a range within -6 to 8"],
        dict(model="flow.pt", logsnr_high=9.5),
    ),
    "logsnr low": (
        ["logsnr: found -7 to 8", "a range within -6 to 8"],
        dict(model="flow.pt", logsnr_low=-7),
    ),
    "logsnr inverted": (
        ["logsnr: found 3 to 2", "low end lies below its high end"],
        dict(model="flow.pt", logsnr_low=3, logsnr_high=2),
    ),
    "bands of a model": (["3 (b1 b2 b3)", "2 band(s)"], dict(model="flow.pt", in2="two.tif")),
    "bands of a ratio": (["3 (b1 b2 b3)", "2 band(s)"], dict(model="ratio.pt", in2="two.tif")),
    # Calibration and fit
    "calibration of other smoothing": (
        ["calibration: found", "smooth 1.0 instead of 2.5", *AGREE],
        dict(calibration="smooth1.cal.json"),
    ),
    "calibration of another estimator": (
        ["calibration: found", 'estimator "cva" instead of "regress"', *AGREE],
        dict(calibration="cva.cal.json"),
    ),
    "calibration of other levels": (
        ["calibration: found", "levels 2 instead of 3", *AGREE],
        dict(calibration="flow.cal.json", model="flow.pt", levels=3, smooth=1),
    ),
    "calibration of another model": (
        ["calibration: found", "model", *AGREE],
        dict(calibration="flow.cal.json", model="gauss.pt", levels=2, smooth=1),
    ),
    "calibration of another seed": (
        ["calibration: found", "seed 0 instead of 1", *AGREE],
        dict(calibration="flow.cal.json", model="flow.pt", levels=2, smooth=1, seed=1),
    ),
    "calibration of one direction": (
        ["calibration: found", 'direction "both" instead of "forward"', *AGREE],
        dict(calibration="regress.cal.json", direction="forward"),
    ),
    "resolution": (
        ["alpha: found 0.001", "pixels", "at least"],
        dict(calibration="regress.cal.json", alpha=0.001),
    ),
    "corrupt calibration": (["corrupt.json", "cannot be read"], dict(calibration="corrupt.json")),
    "empty calibration": (["calibration", "empty.json"], dict(calibration="empty.json")),
    "absent calibration": (["calibration", "absent.json"], dict(calibration="absent.json")),
    "other calibration": (["other.json", "cannot be read"], dict(calibration="other.json")),
    "list as calibration": (["list.json", "cannot be read"], dict(calibration="list.json")),
    "unsorted calibration": (["unsorted.json", "quantiles"], dict(calibration="unsorted.json")),
    "no numbers": (["nonumbers.json", "cannot be read"], dict(calibration="nonumbers.json")),
    "no count": (["nocount.json", "quantiles"], dict(calibration="nocount.json")),
    "corrupt fit": (["corrupt.json", "cannot be read"], dict(fit="corrupt.json")),
    "empty fit": (["fit", "empty.json"], dict(fit="empty.json")),
    "other fit": (["other.json", "cannot be read"], dict(fit="other.json")),
    "fit of another estimator": (
        ["fit: found", 'estimator "cva" instead of "regress"', *AGREE],
        dict(fit="cva.fit.json"),
    ),
    "fit of other weights": (["what was learnt"], dict(fit="weights.json")),
    "fit of no group": (["groups.json"], dict(fit="groups.json")),
    "fit in no folder": (["fit: found", "in a folder that does not exist"], dict(fit="no/f.json")),
    "calibration of no group": (["nogroup.json"], dict(calibration="nogroup.json", alpha=0.05)),
    "calibrate and calibration": (
        ["calibrate: found -calibration as well", "one of the two"],
        dict(calibrate="c.json", calibration="regress.cal.json"),
    ),
    "too small to calibrate": (
        ["calibrate: found a pair with", "at least 20"],
        dict(calibrate="c.json", smooth=8),
    ),
    # Outputs
    "which of cva": (
        ["which: found -estimator cva", "two directions"],
        dict(estimator="cva", which="w.tif"),
    ),
    "which of one direction": (
        ["which: found", "-direction forward", "two directions"],
        dict(direction="forward", which="w.tif"),
    ),
    "which of features": (
        ["which: found", "two directions"],
        dict(model="encoder.pt", which="w.tif"),
    ),
    "objects without change": (["objects: found no -change"], dict(objects="o.gpkg")),
    "objects elsewhere": (
        ["objects: found", "o.json", "a name that ends in .gpkg"],
        dict(objects="o.json", change="c.tif"),
    ),
    "objects whose style would be the map's": (
        ["objects: found", "c.shp", "style", "c.tif", "another name", ".gpkg"],
        dict(objects="c.shp", change="c.tif"),
    ),
    "objects of a box": (
        ["objects: found -change with a box", "the whole map"],
        dict(objects="o.gpkg", out="o.tif?&box=1:2:30:40", change="c.tif?&box=1:2:30:40"),
    ),
    "out in no folder": (["out: found", "no/o.tif", "does not exist"], dict(out="no/o.tif")),
    "one file": (["pvalue: found", "one file an output"], dict(out="o.tif", pvalue="o.tif")),
    "rupture of a pair": (["rupture: found a pair of dates", "il, dates"], dict(rupture="r.tif")),
    "alarm of a pair": (["alarm: found a pair of dates", "il, dates"], dict(alarm="a.tif")),
    # Images
    "grids": (["in2 (shifted.tif)", "in1 (1.tif)", "origin"], dict(in2="shifted.tif")),
    "pixel sizes": (["in2 (coarse.tif)", "spacing 20, -20"], dict(in2="coarse.tif")),
    "size": (["in2 (small.tif)", "size 130 x 50"], dict(in2="small.tif")),
    "no projection to align": (
        ["in2", "spacing 20, -20"],
        dict(in1="bare1.tif", in2="bare2.tif", align="resample"),
    ),
    "cva of other bands": (
        ["estimator: found cva with 3 and 2 bands", "bands=1,2,3"],
        dict(in2="two.tif", estimator="cva"),
    ),
    "siroc of other bands": (
        ["estimator: found siroc with 3 and 2 bands"],
        dict(in2="two.tif", estimator="siroc"),
    ),
    "mask of several bands": (["mask", "one band"], dict(mask="two.tif")),
    # Values
    "clip": (["clip: found 0.3", "between 0 and 0.2"], dict(clip=0.3)),
    "alpha": (["alpha: found 0.7", "at most 0.5"], dict(alpha=0.7)),
    "alpha 0": (["alpha: found 0"], dict(alpha=0)),
    "smooth": (["smooth: found -3"], dict(smooth=-3)),
    "smooth is no number": (["smooth"], dict(smooth="nan")),
    "thr is no number": (["thr"], dict(thr="nan")),
    "levels": (["levels: found 5000", "1 to 4096"], dict(model="flow.pt", levels=5000)),
    "levels below 0": (["levels"], dict(model="flow.pt", levels=-1)),
    "fdr": (["fdr: found 1.5", "between 0 and 1"], dict(fdr=1.5)),
    # Series
    "few dates": (["il: found 7 dates", "at least 8"], dict(SERIES, il=NAMES[:7])),
    "stack and few dates": (["il: found 7 dates"], dict(STACK, il="one.tif", dates="few.txt")),
    "date twice": (
        ["dates: found", "twice", "each date once"],
        dict(SERIES, dates="twice.txt"),
    ),
    "file twice": (["twice", "each date once"], dict(SERIES, il=NAMES + NAMES[:1])),
    "wrong date": (['dates: found "20191399"', "line 9"], dict(SERIES, dates="wrong.txt")),
    "no dates": (["dates", "empty.txt"], dict(SERIES, dates="empty.txt")),
    "absent dates": (["dates", "absent.txt"], dict(SERIES, dates="absent.txt")),
    "no date in names": (["dates: found nothing", "1.tif"], dict(SERIES, il=["1.tif"] * 9)),
    "other number of dates": (["il: found 9 images", "7"], dict(SERIES, dates="few.txt")),
    "stack of other bands": (
        ["il: found a stack of 27 bands", "a multiple of the 7 dates"],
        dict(STACK, dates="few.txt"),
    ),
    "number of masks": (
        ["maskl: found 3 images", "one, or 9, one a date"],
        dict(SERIES, maskl=["mask.tif"] * 3),
    ),
    "bands of masks": (["maskl", "1 band(s)", "9"], dict(SERIES, maskl="mask.tif")),
    "reference": (["reference: found 8 of 9 dates"], dict(SERIES, reference=8)),
    "model of a series": (["model: found a model for a series"], dict(SERIES, model="flow.pt")),
    "estimator of a series": (["estimator: found cva of a series"], dict(SERIES, estimator="cva")),
    "which of a series": (["which: found a series"], dict(SERIES, which="w.tif")),
    "calibrate a series": (["calibrate: found a series"], dict(SERIES, calibrate="c.json")),
    "calibrated series": (
        ["calibration: found a series"],
        dict(SERIES, calibration="regress.cal.json"),
    ),
    "fit of a series": (["fit: found a series"], dict(SERIES, fit="f.json")),
    "grids of a series": (["shifted.tif"], dict(SERIES, il=NAMES[:-1] + ["shifted.tif"])),
}
OUTPUTS = ("out", "pvalue", "change", "which", "rupture", "alarm", "objects", "calibrate")


@pytest.fixture(scope="module")
def refusals(place, tmp_path_factory):
    """``{case: (run, folder)}``."""
    folders = {name: tmp_path_factory.mktemp("refused") for name in CASES}
    stack = read(place / "stack.tif")
    write(place / "one.tif", stack[:21], nodata=0)

    def job(name):
        parameters = dict(in1="1.tif", in2="2.tif", out="map.tif")
        parameters.update(CASES[name][1])

        def path(key, value):
            if isinstance(value, list):
                return [path(key, v) for v in value]
            if key in OUTPUTS or (key == "fit" and not (place / value).exists()):
                return folders[name] / value
            is_file = key in ("in1", "in2", "il", "model", "calibration", "dates", "maskl", "mask")
            return place / value if is_file or key == "fit" else value

        given = {k: path(k, v) for k, v in parameters.items() if v is not None}
        return lambda: run(**given)

    done = together({name: job(name) for name in CASES})
    return {name: (done[name], folders[name]) for name in CASES}


@pytest.mark.parametrize("case", CASES)
def test_refusal(case, refusals):
    done, folder = refusals[case]
    assert_refused(done, folder, *CASES[case][0])


@pytest.mark.parametrize(
    "key, victim",
    [
        ("calibrate", "in1"),
        ("calibrate", "mask"),
        ("calibrate", "model"),
        ("calibrate", "calibration"),
        ("objects", "in2"),
    ],
)
def test_what_is_written_does_not_replace_an_input(key, victim, place, tmp_path):
    """Neither a raster, nor a model, nor a calibration."""
    given = {}
    sources = dict(in1="1.tif", in2="2.tif", mask="mask.tif", model="flow.pt")
    if victim == "calibration":
        sources = dict(in1="1.tif", in2="2.tif", calibration="regress.cal.json")
    for name, file in sources.items():
        suffix = ".gpkg" if key == "objects" and name == victim else ""
        given[name] = tmp_path / (file + suffix)
        shutil.copy(place / file, given[name])
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    if victim == "model":
        given["levels"] = 1
    else:
        given.pop("model", None)
    out = tmp_path / "out"
    out.mkdir()
    options = dict(out=out / "o.tif", change=out / "c.tif", smooth=1, alpha=0.05)
    if victim == "calibration":
        options.pop("smooth")
    done = run(**{key: given[victim]}, **options, **given)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
    assert after == before, f"{given[victim].name} was replaced"
    assert_refused(done, out, f"{key}: found")


@pytest.mark.parametrize(
    "one, other", [("calibrate", "out"), ("fit", "change"), ("calibrate", "fit")]
)
def test_what_is_written_goes_to_different_files(one, other, place, tmp_path):
    paths = {k: tmp_path / f"{k}.tif" for k in ("out", "change")}
    paths.update({one: tmp_path / "x.tif", other: tmp_path / "x.tif"})
    done = run(in1=place / "1.tif", in2=place / "2.tif", **paths)
    assert_refused(done, tmp_path, "one file an output")


@pytest.mark.parametrize("key, name", [("calibrate", "c.json"), ("objects", "o.gpkg")])
def test_a_folder_that_does_not_exist_is_named(key, name, place, tmp_path):
    """By the command line itself, before the application is asked."""
    paths = {key: tmp_path / "no" / name, "out": tmp_path / "o.tif", "change": tmp_path / "c.tif"}
    done = run(in1=place / "1.tif", in2=place / "2.tif", **paths)
    assert 0 < done.returncode < 128
    assert str(tmp_path / "no") in done.log and "exist" in done.log
    assert list(tmp_path.iterdir()) == []


def test_files_that_were_used_are_as_before(place, refusals):
    assert (place / "corrupt.json").read_text() == '{"settings": '
    assert (place / "empty.json").read_bytes() == b""


@pytest.mark.parametrize("case", ["pair", "network", "series"])
def test_full_disk_while_scores_wait_is_said(case, place, tmp_path):
    """Scores of the whole scene lie in a temporary file beside the outputs."""
    out = tmp_path / "out"
    out.mkdir()
    parameters = dict(in1=place / "1.tif", in2=place / "2.tif")
    if case == "network":
        parameters.update(model=place / "flow.pt", levels=1)
    if case == "series":
        parameters = dict(il=[place / n for n in NAMES], rupture=out / "r.tif")
    old = out / "map.tif"
    old.write_bytes(b"older result")
    done = run(preexec=limited(9000), out=old, **parameters)
    keep = ["map.tif"]
    assert_refused(done, out, keep=keep)
    message = done.log[done.log.index("(FATAL)") :].lower()
    assert "temporary file" in message or "space" in message or "too large" in message, done.log
    assert old.read_bytes() == b"older result"


@pytest.mark.parametrize("names", [["out"], ["out", "pvalue", "change"]])
def test_full_disk_while_maps_are_written_is_said(names, place, tmp_path):
    """Scores find room, the larger files of maps do not."""
    out = tmp_path / "out"
    out.mkdir()
    paths = {n: out / f"{n}.tif" for n in names}
    parameters = dict(in1=place / "1.tif", in2=place / "2.tif")
    size = 2 * 4 * WIDTH * HEIGHT + 64
    double = {n: [p, "double"] for n, p in paths.items()}
    done = run(preexec=limited(size), **parameters, **double)
    if done.returncode == 0:  # room for all of them: smaller maps than scores
        double["out"] = [f"{paths['out']}?&gdal:co:BLOCKYSIZE=1", "double"]
        done = run(preexec=limited(size - 128), **parameters, **double)
    assert_refused(done, out)


def test_full_disk_for_a_fit_or_a_calibration_is_said(place, tmp_path):
    """Maps are smaller than what is kept of the scene here."""
    x1 = read(place / "1.tif")[:, :12, :12]
    images = write_pair(tmp_path, x1, x1 + 1)
    out = tmp_path / "out"
    out.mkdir()
    options = dict(out=out / "o.tif", fit=out / "f.json", smooth=0)
    done = run(preexec=limited(6000), **options, **images)
    assert 0 < done.returncode < 128 and "fit" in done.log, done.log
    assert "f.json" not in {p.name for p in out.iterdir()}
    assert not [p for p in out.iterdir() if ".part" in p.name]


# ---------------------------------------------------------------------------------------------
# What looks wrong and is not


@pytest.mark.parametrize(
    "estimator", ["regress", "cva", "mad", "irmad", "siroc", "ratio", "pmi", "loglik"]
)
def test_a_pair_without_data_gives_maps_of_no_data(estimator, likelihood_models, tmp_path):
    rng = np.random.default_rng(1)
    x1, x2, _ = pair(rng, 40, 50)
    x2[:] = 0
    options = dict(estimator=estimator)
    if estimator in ("ratio", "pmi", "loglik"):
        model = "ratio.pt" if estimator == "ratio" else "gauss.pt"
        options["model"] = likelihood_models / model
    names = ["out", "pvalue", "change"]
    found, done = maps(tmp_path, names, **options, **write_pair(tmp_path, x1, x2))
    assert (found["out"] == -9999).all()
    assert (found["pvalue"] == -1).all()
    assert (found["change"] == 255).all()
    assert any("No pixel has data in both dates" in line for line in done.warnings()), done.log


@pytest.mark.parametrize(
    "estimator", ["regress", "cva", "mad", "irmad", "siroc", "latent", "pmi", "denoise", "feature"]
)
def test_equal_images_have_no_change(estimator, likelihood_models, tmp_path):
    rng = np.random.default_rng(2)
    x1, _, _ = pair(rng, 90, 100)
    options = dict(estimator=estimator)
    if estimator in ("latent", "pmi", "denoise", "feature"):
        options["model"] = likelihood_models / "flow.pt"
    names = ["out", "pvalue", "change"]
    found, _ = maps(tmp_path, names, **options, **write_pair(tmp_path, x1, x1))
    assert np.isfinite(found["out"]).all() and (found["out"] != -9999).all()
    assert set(np.unique(found["change"])) <= {0, 1}
    if estimator in ("cva", "latent", "feature"):
        assert (found["out"] == 0).all()
        assert (found["change"] == 0).all() and (found["pvalue"] <= 0.31).all()
    if estimator in ("regress", "mad", "irmad"):
        assert found["out"].max() < 0.2
    if estimator in ("cva", "mad", "irmad", "regress"):
        assert (found["change"] == 1).mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 40), (300, 1)], ids=str)
@pytest.mark.parametrize("estimator", ["regress", "cva", "irmad", "siroc", "ratio", "pmi"])
def test_tiny_images_work(estimator, size, likelihood_models, tmp_path):
    height, width = size
    x1, x2, _ = pair(np.random.default_rng(3), height, width, changed=False)
    options = dict(estimator=estimator)
    if estimator in ("ratio", "pmi"):
        model = "ratio.pt" if estimator == "ratio" else "flow.pt"
        options["model"] = likelihood_models / model
    names = ["out", "pvalue", "change"]
    found, _ = maps(tmp_path, names, **options, **write_pair(tmp_path, x1, x2))
    for name, pixels in found.items():
        assert pixels.reshape(height, width).shape == (height, width)
        assert np.isfinite(pixels).all(), name
    assert (found["out"] != -9999).all()
    assert set(np.unique(found["change"])) <= {0, 1}


def test_a_constant_band_and_constant_images_work(tmp_path):
    rng = np.random.default_rng(4)
    x1, x2, _ = pair(rng, 60, 70)
    x1[1], x2[2] = 700, 900
    images = write_pair(tmp_path, x1, x2)
    flat = write_pair(tmp_path, np.full_like(x1, 5), np.full_like(x1, 6), prefix="flat")
    for estimator in ("regress", "cva", "irmad", "siroc"):
        for name, given in (("a", images), ("b", flat)):
            here = tmp_path / f"{estimator}{name}"
            found, _ = maps(here, ["out", "change"], estimator=estimator, **given)
            assert np.isfinite(found["out"]).all() and (found["out"] != -9999).all()
            assert set(np.unique(found["change"])) <= {0, 1}


def test_a_network_that_fails_at_some_pixels_leaves_them_without_data(tmp_path):
    """As where there is none: NaN is no score."""
    import torch
    from likelihood import contract_of
    from otbtorch import export

    class Fails(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Conv2d(BANDS, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.mix(x).masked_fill(x[:, 0:1] > 20.0, float("nan"))

    torch.manual_seed(0)
    options = dict(patch=32, halo=0, features={"channels": 5})
    export.export(Fails().eval(), contract_of("fails.pt", options), str(tmp_path / "fails.pt"))
    x1, x2, _ = pair(np.random.default_rng(3), HEIGHT, WIDTH)
    x1[0, 20:30, 40:60] = 30000
    given = write_pair(tmp_path, x1, x2)
    names = ["out", "pvalue", "change"]
    found, done = maps(tmp_path / "m", names, model=tmp_path / "fails.pt", **given)
    assert any("NaN or infinity at 200 valid pixels" in line for line in done.warnings())
    assert ((found["out"] == -9999) == (x1[0] == 30000)).all()
    assert ((found["change"] == 255) == (x1[0] == 30000)).all()


def test_a_threshold_given_once_is_not_what_a_scene_taught(place, tmp_path):
    """The fit keeps what was learnt, not what the user said."""
    given = dict(in1=place / "1.tif", in2=place / "2.tif")
    fit = tmp_path / "fit.json"
    _, done = maps(tmp_path / "a", ["out", "change"], fit=fit, thr=0.05, **given)
    assert "as given" in done.log
    wanted, _ = maps(tmp_path / "b", ["out", "change"], **given)
    found, done = maps(tmp_path / "c", ["out", "change"], fit=fit, **given)
    assert "as given" not in done.log
    assert (found["out"] == wanted["out"]).all()
    assert (found["change"] == wanted["change"]).all()


def test_a_fit_with_another_rule_is_refused(place, tmp_path):
    given = dict(in1=place / "1.tif", in2=place / "2.tif", fit=tmp_path / "fit.json")
    maps(tmp_path / "a", ["out"], **given)
    (tmp_path / "b").mkdir()
    done = run(out=tmp_path / "b" / "out.tif", rule="otsu", **given)
    assert_refused(done, tmp_path / "b", "fit: found", 'rule "auto" instead of "otsu"')


def test_a_model_beside_a_statistical_estimator_is_said_to_be_unused(place, tmp_path):
    parameters = dict(in1=place / "1.tif", in2=place / "2.tif", estimator="cva")
    one, _ = maps(tmp_path / "a", ["out"], **parameters)
    other, done = maps(tmp_path / "b", ["out"], model=place / "flow.pt", **parameters)
    assert (one["out"] == other["out"]).all()
    assert any("uses no network" in line for line in done.warnings())
