"""What the maps of change likelihood hold, and what files say of themselves."""

import json

import numpy as np
import pytest
from conftest import EPSG, TRANSFORM, facts, read, write
from likelihood import KINDS, NODATA, grown, likelihood_models, maps, pair, run, same, write_pair
from osgeo import gdal, ogr
from sits import together

__all__ = ["likelihood_models"]  # fixtures

WIDTH, HEIGHT = 320, 300
RULES = ["auto", "deviation", "rosin", "em", "otsu", "kapur", "kittler"]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """``(files, truth, valid)`` of a pair with changes and holes."""
    rng = np.random.default_rng(31)
    x1, x2, truth = pair(rng, HEIGHT, WIDTH)
    x1[:, :40, :30] = 0
    x2[1, 100:105, 200] = np.nan
    valid = np.isfinite(x2).all(0) & (x1 != 0).any(0)
    folder = tmp_path_factory.mktemp("scene")
    return write_pair(folder, x1, x2), truth, valid


@pytest.fixture(scope="module")
def whole(scene, tmp_path_factory):
    """All maps with default parameters: ``(maps, folder, run)``."""
    folder = tmp_path_factory.mktemp("whole")
    found, done = maps(folder, list(KINDS), **scene[0])
    return found, folder, done


# ---------------------------------------------------------------------------------------------
# Files


def test_files_say_what_they_hold(whole, scene):
    found, folder, _ = whole
    descriptions = {"out": "score", "pvalue": "-log10 p", "change": "change", "which": "which"}
    for name, kind in KINDS.items():
        f = facts(folder / f"{name}.tif")
        assert (f.width, f.height, f.bands, f.kind, f.nodata) == (
            WIDTH,
            HEIGHT,
            1,
            kind,
            NODATA[name],
        ), name
        assert f.transform == TRANSFORM and f.epsg == str(EPSG), name
        image = gdal.Open(str(folder / f"{name}.tif"))
        assert image.GetRasterBand(1).GetDescription() == descriptions[name]
        noted = image.GetMetadata()
        settings = json.loads(noted["OTBTORCH_SETTINGS"])
        assert settings["estimator"] == "regress" and settings["smooth"] == 2.5
        assert settings["direction"] == "both" and settings["norm"] == "l2"
        assert abs(float(noted["OTBTORCH_THRESHOLD"]) - threshold(whole)) < 1e-4
        assert noted["OTBTORCH_THRESHOLD_RULE"]
        assert ((found[name] != NODATA[name]) == scene[2]).all(), name


def threshold(whole):
    line = next(row for row in whole[2].log.splitlines() if "Threshold " in row)
    return float(line.split("Threshold ")[1].split(":")[0])


def test_change_is_found_where_it_is(whole, scene):
    found, (_, truth, valid) = whole[0], scene
    change = found["change"] == 1
    assert (change & truth).sum() > 0.95 * (truth & valid).sum()
    assert (change & ~grown(truth, 8)).sum() < 0.01 * valid.sum()


def test_change_is_what_lies_above_the_threshold(whole, scene):
    found, valid = whole[0], scene[2]
    image = gdal.Open(str(whole[1] / "out.tif"))
    limit = float(image.GetMetadataItem("OTBTORCH_THRESHOLD"))
    away = valid & (np.abs(found["out"] - limit) > 1e-4)
    assert ((found["change"] == 1) == (found["out"] > limit))[away].all()


def test_p_values_fall_as_scores_rise(whole, scene):
    found, valid = whole[0], scene[2]
    order = np.argsort(found["out"][valid])
    p = found["pvalue"][valid][order]
    assert (np.diff(p) >= 0).all()
    assert abs(p[len(p) // 2] - np.log10(2)) < 0.02, "half of the scores lie above the median"
    assert p.max() <= 300 and p.min() >= 0
    quiet = ~grown(scene[1], 12) & valid
    for alpha, most in ((0.05, 0.15), (0.01, 0.09)):
        rate = (found["pvalue"][quiet] >= -np.log10(alpha)).mean()
        assert rate < most, (alpha, rate)


def test_maps_of_other_types_and_formats(scene, whole, tmp_path):
    done = run(
        out=[tmp_path / "o.img", "double"],
        change=[tmp_path / "c.png", "uint8"],
        pvalue=[f"{tmp_path}/p.tif?&gdal:co:COMPRESS=DEFLATE", "float"],
        **scene[0],
    )
    done.ok()
    assert (read(tmp_path / "o.img") == whole[0]["out"]).all()
    assert (read(tmp_path / "c.png") == whole[0]["change"]).all()
    assert (read(tmp_path / "p.tif") == whole[0]["pvalue"]).all()


def test_a_type_that_does_not_hold_no_data_is_refused(scene, tmp_path):
    done = run(out=[tmp_path / "o.tif", "uint8"], **scene[0])
    assert 0 < done.returncode < 128 and "-9999" in done.log
    assert list(tmp_path.iterdir()) == []


def test_equal_runs_log_what_they_did(whole):
    _, _, done = whole
    for fragment in ("320 x 300 pixels, regression of the pair, 3 and 3 bands", "no network"):
        assert fragment in done.text()
    assert "Wrote" in done.log and "Time:" in done.log
    assert not done.warnings()


# ---------------------------------------------------------------------------------------------
# Parameters


def test_which_names_the_date_that_holds_something_new(tmp_path):
    """What appears in date 2 cannot be told from date 1, and the other way round."""
    rng = np.random.default_rng(8)
    x1 = np.full((3, 200, 220), 1500.0) + 60 * rng.standard_normal((3, 200, 220))
    x2 = x1 + 60 * rng.standard_normal(x1.shape)
    x2[:, 40:70, 30:60] += 1500  # new
    x1[:, 120:150, 140:170] += 1500  # gone
    given = write_pair(tmp_path, x1.astype(np.float32), x2.astype(np.float32))
    found, _ = maps(tmp_path / "m", list(KINDS), **given)
    assert (found["change"][45:65, 35:55] == 1).all()
    assert (found["change"][125:145, 145:165] == 1).all()
    assert (found["which"][45:65, 35:55] == 2).mean() > 0.9
    assert (found["which"][125:145, 145:165] == 1).mean() > 0.9


@pytest.mark.parametrize("case", ["regress", "pmi", "mae"])
def test_both_directions_are_averaged_and_compared(case, scene, likelihood_models, tmp_path):
    options = {
        "regress": {},
        "pmi": dict(model=likelihood_models / "flow.pt", levels=1),
        "mae": dict(model=likelihood_models / "mae.pt"),
    }[case]

    def job(direction):
        names = ["out", "which"] if direction == "both" else ["out"]
        more = dict(options, direction=direction, **scene[0])
        return lambda: maps(tmp_path / direction, names, **more)[0]

    found = together({d: job(d) for d in ("forward", "backward", "both")})
    valid = scene[2]
    forward, backward = (found[d]["out"].astype(float) for d in ("forward", "backward"))
    both, which = found["both"]["out"], found["both"]["which"]
    scale = np.abs(both[valid]).max()
    assert np.abs(both - (forward + backward) / 2)[valid].max() < 1e-5 * scale
    told = valid & (np.abs(forward - backward) > 1e-5 * scale)
    assert (which[told] == np.where(forward > backward, 2, 1)[told]).all()
    assert (forward != backward)[valid].mean() > 0.9


def test_dates_the_other_way_round(scene, whole, tmp_path):
    """The score is that of the pair; the less likely date is the other one."""
    files = dict(in1=scene[0]["in2"], in2=scene[0]["in1"])
    found, _ = maps(tmp_path, list(KINDS), **files)
    valid = scene[2]
    assert np.abs(found["out"] - whole[0]["out"])[valid].max() < 1e-4
    told = found["which"][valid] + whole[0]["which"][valid]
    assert (told == 3).mean() > 0.999


@pytest.mark.parametrize("value", [0.0, 1.1, -5, 1e6])
def test_a_given_threshold_is_used(value, scene, whole, tmp_path):
    found, done = maps(tmp_path, ["out", "change"], thr=value, **scene[0])
    valid = scene[2]
    same(dict(out=found["out"]), whole[0])
    wanted = found["out"] > np.float32(value)
    assert ((found["change"] == 1) == wanted)[valid].all()
    assert (found["change"][~valid] == 255).all()
    assert "as given" in done.log


@pytest.fixture(scope="module")
def ruled(scene, tmp_path_factory):
    """``{rule: (run, folder)}``."""
    folders = {rule: tmp_path_factory.mktemp(rule) for rule in RULES}

    def job(rule):
        paths = {n: folders[rule] / f"{n}.tif" for n in ("out", "change")}
        return lambda: run(rule=rule, **paths, **scene[0])

    done = together({rule: job(rule) for rule in RULES})
    return {rule: (done[rule], folders[rule]) for rule in RULES}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_finds_a_threshold(rule, ruled, scene, whole):
    done, folder = ruled[rule]
    done.ok()
    _, truth, valid = scene
    scores = whole[0]["out"][valid].astype(float)
    same(dict(out=read(folder / "out.tif")), whole[0])
    image = gdal.Open(str(folder / "out.tif"))
    limit = float(image.GetMetadataItem("OTBTORCH_THRESHOLD"))
    assert scores.min() < limit < scores.max()
    assert image.GetMetadataItem("OTBTORCH_THRESHOLD_RULE") in done.text()
    change = read(folder / "change.tif") == 1
    assert (change & truth & valid).sum() > 0.6 * (truth & valid).sum()
    if rule == "deviation":
        assert limit == pytest.approx(scores.mean() + 2.5 * scores.std(), abs=1e-2)
    if rule == "otsu":
        assert limit == pytest.approx(otsu(scores), abs=2e-2)
    if rule == "auto":
        same(dict(change=read(folder / "change.tif")), whole[0])


def otsu(values):
    """The threshold of the greatest variance between two classes."""
    counts, edges = np.histogram(values, 2048)
    centres = (edges[1:] + edges[:-1]) / 2
    below = counts.cumsum()[:-1]
    sums = (counts * centres).cumsum()
    low, high = sums[:-1] / below, (sums[-1] - sums[:-1]) / (below[-1] + counts[-1] - below)
    return edges[1:-1][np.argmax(below * (len(values) - below) * (high - low) ** 2)]


def test_smoothing(scene, whole, tmp_path):
    """0: none; -1: 2.5; else a Gaussian of the raw score."""
    valid = scene[2]
    plain, _ = maps(tmp_path / "0", ["out"], smooth=0, **scene[0])
    more, _ = maps(tmp_path / "4", ["out"], smooth=4, **scene[0])
    named, _ = maps(tmp_path / "2.5", ["out"], smooth=2.5, **scene[0])
    same(named, whole[0])
    roughness = [np.diff(m["out"][150:, 100:]).std() for m in (plain, named, more)]
    assert roughness[0] > 2 * roughness[1] and roughness[1] > 1.2 * roughness[2]
    assert ((plain["out"] != -9999) == valid).all() and ((more["out"] != -9999) == valid).all()


def test_smoothing_of_a_model_is_that_of_its_contract(scene, likelihood_models, tmp_path):
    options = dict(model=likelihood_models / "ratio.pt", **scene[0])
    own, _ = maps(tmp_path / "a", ["out"], **options)
    named, _ = maps(tmp_path / "b", ["out"], smooth=2, **options)
    other, _ = maps(tmp_path / "c", ["out"], smooth=2.5, **options)
    same(own, named)
    assert not (own["out"] == other["out"]).all()


@pytest.mark.parametrize(
    "model, estimator",
    [
        ("flow.pt", "pmi"),
        ("epsilon.pt", "latent"),
        ("latent.pt", "pmi"),
        ("mae.pt", "mae"),
        ("ratio.pt", "ratio"),
        ("encoder.pt", "feature"),
    ],
)
def test_the_estimator_that_suits_a_model_is_chosen(
    model, estimator, scene, likelihood_models, tmp_path
):
    options = dict(model=likelihood_models / model, **scene[0])
    options.update(levels=1) if estimator == "pmi" else None
    maps(tmp_path, ["out"], **options)
    noted = gdal.Open(str(tmp_path / "out.tif")).GetMetadataItem("OTBTORCH_SETTINGS")
    assert json.loads(noted)["estimator"] == estimator


def test_several_files_a_date_and_a_mask(scene, whole, tmp_path):
    """Bands of files are taken together; what the mask leaves out is no-data everywhere."""
    files, _, valid = scene
    lists = {}
    for key in ("in1", "in2"):
        bands = read(files[key])
        lists[key] = [
            write(tmp_path / f"{key}a.tif", bands[:1], nodata=0),
            write(tmp_path / f"{key}b.tif", bands[1:], nodata=0),
        ]
    found, _ = maps(tmp_path / "lists", list(KINDS), **lists)
    same(found, whole[0])
    mask = np.ones((HEIGHT, WIDTH), np.uint8)
    mask[120:200, 60:150] = 0
    path = write(tmp_path / "mask.tif", mask, kind=gdal.GDT_Byte)
    found, _ = maps(tmp_path / "masked", list(KINDS), mask=path, **lists)
    for name, pixels in found.items():
        assert ((pixels != NODATA[name]) == (valid & (mask != 0))).all(), name


@pytest.mark.parametrize("estimator", ["regress", "mad", "irmad"])
def test_dates_may_have_different_bands(estimator, scene, tmp_path):
    files, truth, valid = scene
    options = dict(in1=files["in1"], in2=f"{files['in2']}?&bands=1,3", estimator=estimator)
    found, done = maps(tmp_path, ["out", "change"], **options)
    assert "3 and 2 bands" in done.log
    good = found["out"] != -9999
    assert (good >= valid).all()
    inside = found["out"][truth & valid].mean()
    assert inside > found["out"][~truth & valid].mean() + 2 * found["out"][~truth & valid].std()


def test_dates_of_other_pixel_sizes_are_resampled(scene, whole, tmp_path):
    files, truth, valid = scene
    x2 = read(files["in2"])
    x2 = np.where(np.isfinite(x2), x2, 0)
    coarse = x2.reshape(3, HEIGHT // 2, 2, WIDTH // 2, 2).mean((2, 4)).astype(np.float32)
    coarse[:, :20, :15] = 0
    transform = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    path = write(tmp_path / "coarse.tif", coarse, transform=transform, nodata=0)
    options = dict(in1=files["in1"], in2=path, align="resample")
    found, done = maps(tmp_path / "a", ["out", "change"], **options)
    assert "resampled onto the grid of in1 (" in done.text()
    assert facts(tmp_path / "a" / "out.tif").transform == TRANSFORM
    assert (found["change"] == 1)[truth & valid].mean() > 0.8
    by_tiles, _ = maps(
        tmp_path / "b",
        ["out", "change"],
        "?&streaming:type=tiled&streaming:sizemode=height&streaming:sizevalue=64",
        ram=8,
        threads=1,
        **options,
    )
    same(by_tiles, found)
    strict, _ = maps(tmp_path / "c", ["out"], align="resample", **files)
    same(strict, whole[0])


def test_no_data_of_the_files_counts(scene, tmp_path):
    """Values that a file declares, and none where it declares nothing."""
    x1, x2 = (read(scene[0][k])[:, :120, :130] for k in ("in1", "in2"))
    x2 = np.where(np.isfinite(x2), x2, 5)
    x1[:, 100:, :] = 77
    declared = write_pair(tmp_path, x1, x2, nodata=77)
    found, _ = maps(tmp_path / "a", ["out"], **declared)
    assert (found["out"][100:] == -9999).all() and (found["out"][:100] != -9999).all()
    plain = write_pair(tmp_path, x1, x2, prefix="plain", nodata=None)
    found, _ = maps(tmp_path / "b", ["out"], **plain)
    assert (found["out"] != -9999).all()


# ---------------------------------------------------------------------------------------------
# Calibration


@pytest.fixture(scope="module")
def quiet_pairs(tmp_path_factory):
    """Two pairs of one kind without change, and one with changes."""
    folder = tmp_path_factory.mktemp("quiet")
    made = []
    for k in range(3):
        x1, x2, truth = pair(np.random.default_rng(100 + k), 600, 640, changed=k == 2)
        made.append((write_pair(folder, x1, x2, prefix=f"p{k}"), truth))
    return made


@pytest.fixture(scope="module")
def calibrated(quiet_pairs, tmp_path_factory):
    """A calibration, by the first pair."""
    folder = tmp_path_factory.mktemp("calibration")
    file = folder / "cal.json"
    done = run(out=folder / "o.tif", calibrate=file, **quiet_pairs[0][0]).ok()
    assert "Calibrated on" in done.log
    return file


def test_a_calibration_says_what_it_is_of(calibrated):
    made = json.loads(calibrated.read_text())
    assert made["settings"]["estimator"] == "regress" and made["block"] == 16
    assert made["count"] == 40 * 37 or made["count"] == 40 * 38
    assert (np.diff(made["quantiles"]) >= 0).all()


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_false_alarms_of_another_pair_are_as_many_as_asked_for(
    alpha, quiet_pairs, calibrated, tmp_path
):
    """Scores of pixels a block apart hardly depend on each other: a binomial band holds."""
    files = quiet_pairs[1][0]
    options = dict(calibration=calibrated, alpha=alpha)
    found, _ = maps(tmp_path, ["out", "pvalue", "change"], **options, **files)
    p, change = found["pvalue"], found["change"]
    limit = -np.log10(alpha)
    away = np.abs(p - limit) > 1e-5
    assert ((change == 1) == (p >= limit))[away].all()
    counts = [
        (change[y::16, x::16] == 1).sum() for y in range(0, 16, 4) for x in range(0, 16, 4)
    ]
    n = change[::16, ::16].size
    expected = alpha * n
    # The calibration is a draw of as many pixels, and scores of a pair share its fit.
    band = 4 * np.sqrt(2 * expected * (1 - alpha)) + 1
    assert abs(np.mean(counts) - expected) < band, (counts, expected)
    assert change.mean() > 0.1 * alpha


def test_change_of_another_pair_is_found_with_a_calibration(quiet_pairs, calibrated, tmp_path):
    files, truth = quiet_pairs[2]
    options = dict(calibration=calibrated, alpha=0.01)
    found, _ = maps(tmp_path, ["out", "pvalue", "change"], **options, **files)
    count = json.loads(calibrated.read_text())["count"]
    assert (found["change"] == 1)[truth].mean() > 0.95
    assert found["pvalue"].max() <= np.log10(count + 1) + 1e-4, "conformal: 1 in so many at best"
    given, _ = maps(tmp_path / "t", ["out", "change"], thr=1.0, **options, **files)
    assert ((given["change"] == 1) == (given["out"] > 1.0)).all(), "a given threshold prevails"


# ---------------------------------------------------------------------------------------------
# Objects


def features(path):
    """``[(fields, geometry as WKT area)]`` of a GeoPackage."""
    data = ogr.Open(str(path))
    layers = [data.GetLayer(k).GetName() for k in range(data.GetLayerCount())]
    assert layers == ["changes", "layer_styles"]
    layer = data.GetLayer(0)
    made = []
    for f in layer:
        fields = {f.GetFieldDefnRef(i).GetName(): f.GetField(i) for i in range(f.GetFieldCount())}
        made.append((fields, f.GetGeometryRef().GetArea(), f.GetGeometryRef().GetEnvelope()))
    code = layer.GetSpatialRef().GetAuthorityCode(None)
    return made, code


def test_objects_are_those_of_the_change_map(scene, tmp_path):
    paths = {k: tmp_path / v for k, v in (("out", "o.tif"), ("change", "c.tif"))}
    run(objects=tmp_path / "o.gpkg", **paths, **scene[0]).ok()
    found, code = features(tmp_path / "o.gpkg")
    change, score = read(paths["change"]), read(paths["out"])
    assert code == str(EPSG) and len(found) >= 3
    assert sum(f["area_px"] for f, _, _ in found) == (change == 1).sum()
    for fields, area, (west, east, south, north) in found:
        assert abs(area - fields["area_m2"]) < 1e-6 * area
        assert fields["area_m2"] == 100 * fields["area_px"]
        assert fields["mean_score"] <= fields["max_score"] <= score.max() + 1e-5
        assert 0 < fields["compactness"] <= 1 and fields["perimeter"] > 0
        rows = slice(int((TRANSFORM[3] - north) / 10), int((TRANSFORM[3] - south) / 10))
        columns = slice(int((west - TRANSFORM[0]) / 10), int((east - TRANSFORM[0]) / 10))
        inside = change[rows, columns] == 1
        assert inside.sum() >= fields["area_px"]
        assert score[rows, columns][inside].max() >= fields["max_score"] - 1e-5
        settings = json.loads(fields["settings"])
        assert settings["estimator"] == "regress"
    assert len({f["id"] for f, _, _ in found}) == len(found)
    again = run(objects=tmp_path / "o.gpkg", **paths, **scene[0]).ok()
    assert "Wrote" in again.log and len(features(tmp_path / "o.gpkg")[0]) == len(found)


def test_small_objects_are_dropped_and_holes_filled(tmp_path):
    rng = np.random.default_rng(4)
    x1, x2, _ = pair(rng, 200, 210, changed=False)
    for y, x, side in ((30, 30, 40), (100, 120, 12), (150, 40, 24)):
        x2[:, y : y + side, x : x + side] += 3000
    x2[:, 45:55, 45:55] -= 3000  # a hole
    images = write_pair(tmp_path, x1, x2)

    def job(name, **options):
        here = tmp_path / name
        here.mkdir()
        files = dict(out=here / "o.tif", change=here / "c.tif", objects=here / "o.gpkg")

        def done():
            run(smooth=0.5, rule="otsu", **files, **options, **images).ok()
            found, _ = features(files["objects"])
            return sorted(f["area_px"] for f, _, _ in found), read(files["change"])

        return done

    made = together(
        {
            "all": job("all"),
            "px": job("px", minsize=100),
            "m2": job("m2", minsize=30000, sizeunit="m2"),
            "same": job("same", minsize=300),
            "filled": job("filled", minsize=100, fill=400),
        }
    )
    change = made["all"][1]
    assert sum(made["all"][0]) == (change == 1).sum()
    for pixels in (found[1] for found in made.values()):
        assert (pixels == change).all(), "the map is that of the pixels"
    assert made["px"][0] == [a for a in made["all"][0] if a >= 100]
    assert len(made["px"][0]) == 3
    assert made["m2"][0] == made["same"][0] and len(made["m2"][0]) == 2
    assert 50 < made["filled"][0][-1] - made["px"][0][-1] < 150
    assert made["filled"][0][:2] == made["px"][0][:2]


def test_objects_are_controlled_for_false_discoveries(scene, whole, tmp_path):
    """Benjamini and Hochberg on the p-values of mean scores."""
    files = scene[0]
    limit = float(np.quantile(whole[0]["out"][scene[2]], 0.85))

    def job(rate):
        here = tmp_path / str(rate)
        here.mkdir()
        paths = dict(out=here / "o.tif", change=here / "c.tif", objects=here / "o.gpkg")

        def done():
            finished = run(thr=limit, fdr=rate, pvalue=here / "p.tif", **paths, **files).ok()
            return finished, features(paths["objects"])[0]

        return done

    made = together({rate: job(rate) for rate in (0, 1e-6, 0.01, 1)})
    every = [f for f, _, _ in made[0][1]]
    assert "pvalue" not in every[0] and len(every) > 10
    values = {f["id"]: f["pvalue"] for f, _, _ in made[1][1]}
    assert len(values) == len(every), "a rate of 1 keeps all"
    score, p = read(tmp_path / "0" / "o.tif"), read(tmp_path / "1" / "p.tif")
    score, p = score[score != -9999], p[p != -1]
    order = np.argsort(score)
    means = {f["id"]: f["mean_score"] for f in every}
    for key, value in values.items():
        wanted = np.interp(means[key], score[order], p[order])
        assert abs(-np.log10(max(value, 1e-300)) - wanted) < 0.02 + 0.02 * wanted
    ranked = sorted(values.values())
    kept = {}
    for rate in (1e-6, 0.01):
        good = [k + 1 for k, v in enumerate(ranked) if v <= rate * (k + 1) / len(ranked)]
        kept[rate] = {f["id"] for f, _, _ in made[rate][1]}
        assert len(kept[rate]) == (good[-1] if good else 0), rate
        assert f"{len(kept[rate])} of {len(ranked)} objects are kept" in made[rate][0].log
    assert kept[1e-6] <= kept[0.01] <= set(values)
    assert len(kept[1e-6]) < len(values)


def test_dates_in_names_are_noted_with_objects(scene, tmp_path):
    names = {}
    for key, date in (("in1", "20190405"), ("in2", "20210607")):
        names[key] = tmp_path / f"S2_{date}_x.tif"
        names[key].write_bytes(scene[0][key].read_bytes())
    paths = dict(out=tmp_path / "o.tif", change=tmp_path / "c.tif", objects=tmp_path / "o.gpkg")
    run(**paths, **names).ok()
    found, _ = features(tmp_path / "o.gpkg")
    dates = {(f["date1"].replace("-", ""), f["date2"].replace("-", "")) for f, _, _ in found}
    assert dates == {("20190405", "20210607")}
