"""Pairs as they come: bands of several resolutions, no georeference, dates that are shifted.

The networks are closed forms, exported to TorchScript: what they see is read off their maps.
"""

import re

import numpy as np
import pytest
from conftest import TRANSFORM, facts, parts, read, run, stripes, texture, tiles, write
from osgeo import gdal
from scipy import ndimage

WIDTH, HEIGHT = 240, 180
SHIFT = re.compile(
    r"(?:Shift of date 2 against date 1|shift that is left): "
    r"([\d.]+) px (right|left), ([\d.]+) px (down|up)"
)


def shifts(done):
    """[(x, y)] of the log, right and down."""
    return [
        (float(x) * (1 if h == "right" else -1), float(y) * (1 if v == "down" else -1))
        for x, h, y, v in SHIFT.findall(done.text())
    ]


def moved(image, x, y):
    """Bands that show at p + (x, y) what the image shows at p: exact, by its spectrum."""
    wide = np.pad(image.astype(float), ((0, 0), (32, 32), (32, 32)), mode="reflect")
    v, u = (np.fft.fftfreq(n) for n in wide.shape[1:])
    turn = np.exp(-2j * np.pi * (u[None] * x + v[:, None] * y))
    return np.fft.ifft2(np.fft.fft2(wide) * turn).real[:, 32:-32, 32:-32].astype(np.float32)


def score(truth, change):
    """F1."""
    return 2 * (truth & change).sum() / (truth.sum() + change.sum())


@pytest.fixture(scope="session")
def export_model(tmp_path_factory):
    """Function: a network over so many bands, 0 to ``top``, as a file."""
    import torch
    from otbtorch import change_detection, export, min_max
    from torch import nn

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pairs")

    class Weighted(nn.Module):
        """A logit that is a weighted sum of the bands of date 2, or of their difference."""

        def __init__(self, bands, difference, gain, offset):
            super().__init__()
            self.difference, self.gain, self.offset = difference, gain, offset
            self.register_buffer("weights", torch.arange(1.0, bands + 1).reshape(1, bands, 1, 1))

        def forward(self, x1: torch.Tensor, x2: torch.Tensor) -> torch.Tensor:
            x = (x1 - x2).abs() if self.difference else x2 * self.weights
            return self.gain * x.mean(1, keepdim=True) + self.offset

    made = {}

    def make(bands, top=10000, difference=True, gain=60.0, offset=-3.0, **more):
        key = (bands, top, difference, gain, offset, str(more))
        if key not in made:
            names = [f"b{k + 1}" for k in range(bands)]
            contract = change_detection(
                "weighted",
                names,
                min_max(0, top),
                patch=128,
                halo=0,
                multiple=1,
                license="CC0-1.0",
                training_data="none",
                architecture="test",
            )
            contract = getattr(contract, "data", contract)
            contract["properties"].update(more)
            net = Weighted(bands, difference, gain, offset)
            made[key] = folder / f"{len(made)}.pt"
            export(net, contract, str(made[key]))
        return made[key]

    return make


def logit(p):
    return np.log(p) - np.log1p(-p)


# ---------------------------------------------------------------------------------------------
# Bands of several resolutions


def plane(k, x, y):
    """A band that is a plane, at positions in metres from the upper left corner."""
    return 1000.0 * (k + 1) + (k + 1) * 0.4 * x - 0.3 * k * y


@pytest.fixture(scope="module")
def resolutions(tmp_path_factory):
    """Three bands of 60, 20 and 10 m in as many files, of both dates."""
    folder = tmp_path_factory.mktemp("resolutions")
    lists = {}
    for date in (1, 2):
        files = []
        for k, step in enumerate((60, 20, 10)):
            width, height = WIDTH * 10 // step, HEIGHT * 10 // step
            y, x = (np.mgrid[:height, :width] + 0.5) * step
            grid = (TRANSFORM[0], float(step), 0.0, TRANSFORM[3], 0.0, -float(step))
            band = plane(k, x, y) + 50 * date
            files.append(write(folder / f"d{date}_b{k + 1}.tif", band, transform=grid))
        lists[f"in{date}"] = files
    return lists


def test_coarser_bands_are_brought_onto_the_finest_grid(resolutions, export_model, tmp_path):
    """Planes stay planes: half a pixel of a coarse band would show."""
    model = export_model(3, difference=False, gain=1.0, offset=0.0)
    out, proba = tmp_path / "out.tif", tmp_path / "proba.tif"
    done = run(model=model, out=out, proba=proba, **resolutions).ok()
    for path in (out, proba):
        found = facts(path)
        assert (found.width, found.height, found.transform) == (WIDTH, HEIGHT, TRANSFORM)
    y, x = (np.mgrid[:HEIGHT, :WIDTH] + 0.5) * 10
    wanted = sum((k + 1) * (plane(k, x, y) + 100) / 10000 for k in range(3)) / 3
    inside = (slice(13, -13), slice(13, -13))  # two pixels of 60 m
    assert np.abs(logit(read(proba).astype(float)) - wanted)[inside].max() < 1e-4
    assert (read(proba) != -1).all()
    assert done.text().count("2 of its 3 file(s) with coarser pixels (2, 6 times)") == 2
    assert "onto the grid of in1 (d1_b3.tif)" in done.text()


def test_coarser_bands_may_end_within_half_of_their_pixel(resolutions, export_model, tmp_path):
    model = export_model(3)
    for shift, good in ((29.0, True), (31.0, False)):
        band = read(resolutions["in2"][0])
        grid = (TRANSFORM[0] + shift, 60.0, 0.0, TRANSFORM[3], 0.0, -60.0)
        other = write(tmp_path / f"other{int(shift)}.tif", band, transform=grid)
        given = dict(resolutions, in2=[other] + resolutions["in2"][1:])
        out = tmp_path / f"out{int(shift)}.tif"
        done = run(model=model, out=out, **given)
        if good:
            pixels = read(done.ok() and out)
            assert (pixels[:, :2] == 255).all() and (pixels[:, 3:] != 255).all()
            continue
        assert 0 < done.returncode < 128 and not out.exists()
        for word in ("in2 (other31.tif)", "coarser bands", "edges 500031", "as in1 (d1_b3.tif)"):
            assert word in done.text(), done.log
        assert "-align resample" in done.text()
        run(model=model, out=out, align="resample", **given).ok()


def test_a_coarser_second_date_needs_a_word(resolutions, export_model, tmp_path):
    given = dict(in1=resolutions["in1"][2], in2=resolutions["in2"][1])
    model = export_model(1)
    done = run(model=model, out=tmp_path / "o.tif", **given)
    assert 0 < done.returncode < 128
    assert "in2 (d2_b2.tif)" in done.text() and "-align resample" in done.text()
    done = run(model=model, out=tmp_path / "o.tif", align="resample", **given).ok()
    assert "1 of its 1 file(s) resampled onto the grid of in1 (d1_b3.tif)" in done.text()


def test_a_mask_on_another_grid_is_resampled_when_asked(resolutions, export_model, tmp_path):
    mask = np.ones((HEIGHT // 2, WIDTH // 2), np.uint8)
    mask[10:20, 30:50] = 0
    grid = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    mask = write(tmp_path / "mask.tif", mask, transform=grid, kind=gdal.GDT_Byte)
    given = dict(resolutions, mask=mask, model=export_model(3), out=tmp_path / "o.tif")
    assert run(**given).returncode != 0
    run(align="resample", **given).ok()
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[20:40, 60:100] = True
    assert ((read(tmp_path / "o.tif") == 255) == wanted).all()


# ---------------------------------------------------------------------------------------------
# Without a georeference


def png(path, bands):
    memory = write("/vsimem/pairs.tif", bands, transform=None, epsg=None, kind=gdal.GDT_Byte)
    gdal.GetDriverByName("PNG").CreateCopy(str(path), gdal.Open(str(memory)))
    (path.parent / (path.name + ".aux.xml")).unlink(missing_ok=True)
    return path


@pytest.fixture(scope="module")
def photographs():
    rng = np.random.default_rng(3)
    x1 = np.clip(texture(rng, 3, 150, 200) / 20, 1, 255).astype(np.uint8)
    x2 = np.clip(x1 + 0.2 * texture(rng, 3, 150, 200) / 20, 1, 255).astype(np.uint8)
    return x1, x2


def test_a_smaller_second_photograph_is_refused_or_padded(photographs, export_model, tmp_path):
    x1, x2 = photographs
    model = export_model(3, top=255)
    first, second = png(tmp_path / "a.png", x1), png(tmp_path / "b.png", x2[:, :-1, :-3])
    proba = tmp_path / "p.tif"
    given = dict(in1=first, in2=second, model=model, out=tmp_path / "o.tif", proba=proba)
    done = run(**given)
    assert 0 < done.returncode < 128 and not proba.exists()
    for word in ("in2 (b.png): found size 197 x 149", "size 200 x 150 as in1 (a.png)"):
        assert word in done.text()
    assert "-align resample" in done.text()
    done = run(align="resample", **given).ok()
    assert "from the upper left corner: there is no georeference" in done.text()
    padded = read(proba)
    assert facts(proba).projection == "" and padded.shape == (150, 200)
    assert (padded[-1] == -1).all() and (padded[:, -3:] == -1).all()
    given["in1"] = png(tmp_path / "c.png", x1[:, :-1, :-3])
    run(**given).ok()
    assert (read(proba) == padded[:-1, :-3]).all() and (read(proba) != -1).all()


def test_a_larger_second_photograph_is_cropped(photographs, export_model, tmp_path):
    x1, x2 = photographs
    first, second = png(tmp_path / "a.png", x1[:, :140, :190]), png(tmp_path / "b.png", x2)
    given = dict(in1=first, model=export_model(3, top=255), out=tmp_path / "o.tif")
    run(in2=second, proba=tmp_path / "p.tif", align="resample", **given).ok()
    cut = png(tmp_path / "c.png", x2[:, :140, :190])
    run(in2=cut, proba=tmp_path / "q.tif", **given).ok()
    assert (read(tmp_path / "p.tif") == read(tmp_path / "q.tif")).all()


def test_one_date_without_a_georeference_is_refused(photographs, export_model, tmp_path):
    x1, x2 = photographs
    first, second = write(tmp_path / "a.tif", x1), png(tmp_path / "b.png", x2)
    given = dict(in1=first, in2=second, model=export_model(3, top=255), align="resample")
    done = run(out=tmp_path / "o.tif", **given)
    assert 0 < done.returncode < 128 and "projection none" in done.text()


# ---------------------------------------------------------------------------------------------
# The shift between the dates


@pytest.fixture(scope="module")
def shifted(tmp_path_factory):
    """A pair with changed blocks, as it is and with date 2 moved by (0.7, -1.3)."""
    folder = tmp_path_factory.mktemp("shifted")
    rng = np.random.default_rng(5)
    sharp = texture(rng, 3, 300, 330)
    x1 = ndimage.gaussian_filter(sharp, (0, 0.7, 0.7))
    x2 = 0.95 * x1 + rng.normal(0, 20, x1.shape)
    truth = np.zeros((300, 330), bool)
    for y, x in rng.integers(20, 270, (14, 2)):
        truth[y : y + 12, x : x + 14] = True
    x2[:, truth] += 1500
    away = moved(x2, 0.7, -1.3)
    return dict(
        in1=write(folder / "in1.tif", x1, nodata=0),
        here=write(folder / "here.tif", x2, nodata=0),
        away=write(folder / "away.tif", away, nodata=0),
        truth=truth,
    )


def test_a_known_shift_is_measured_warned_about_and_corrected(shifted, export_model, tmp_path):
    model = export_model(3, gain=100.0, offset=-6.0)
    out = tmp_path / "o.tif"
    given = dict(in1=shifted["in1"], model=model, out=out)
    done = run(in2=shifted["here"], **given).ok()
    assert np.abs(shifts(done)).max() < 0.05 and done.warnings() == []
    before = score(shifted["truth"], read(out) == 1)

    done = run(in2=shifted["away"], **given).ok()
    assert len(shifts(done)) == 1
    assert np.abs(np.subtract(shifts(done)[0], (0.7, -1.3))).max() < 0.05
    assert re.search(r"\d of \d+ windows of 128 pixels agree, confidence 0\.\d\d", done.text())
    assert any("1.5 pixels apart" in w and "-coreg shift" in w for w in done.warnings())
    spoiled = score(shifted["truth"], read(out) == 1)

    done = run(in2=shifted["away"], coreg="shift", **given).ok()
    assert len(shifts(done)) == 2 and np.abs(shifts(done)[1]).max() < 0.1
    assert done.warnings() == []
    corrected = score(shifted["truth"], read(out) == 1)
    assert before > 0.9 and spoiled < 0.6 and corrected > before - 0.05, (
        before,
        spoiled,
        corrected,
    )
    assert facts(out).transform == TRANSFORM


def test_date_2_is_moved_by_what_was_measured(shifted, export_model, tmp_path):
    """Cubic convolution, by SciPy, at the shift of the log."""
    model = export_model(3, difference=False, gain=1.0, offset=0.0)
    proba = tmp_path / "p.tif"
    given = dict(in1=shifted["in1"], in2=shifted["away"], model=model, out=tmp_path / "o.tif")
    x, y = shifts(run(proba=proba, coreg="shift", **given).ok())[0]
    wanted = sum((k + 1) * b for k, b in enumerate(read(shifted["away"]))) / 3 / 10000

    def kernel(t):
        t = abs(t)
        near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
        return np.where(t < 1, near, np.where(t < 2, far, 0))

    for axis, by in ((0, y), (1, x)):
        whole = int(np.floor(by))
        weights = [kernel(by - (whole + n)) for n in range(-1, 3)]
        wanted = sum(w * np.roll(wanted, -(whole + n), axis) for w, n in zip(weights, range(-1, 3)))
    pixels = read(proba).astype(float)
    inside = (slice(4, -4), slice(4, -4))
    found = logit(pixels[inside])
    assert np.corrcoef(found.ravel(), wanted[inside].ravel())[0, 1] > 0.9999
    assert np.abs(found - wanted[inside]).mean() < 0.004 * wanted[inside].std() + 1e-3
    none = pixels == -1
    assert none[0].all() and none[:, -1].all() and none.sum() == 330 + 299, none.sum()


def test_without_a_wish_nothing_is_measured(shifted, export_model, tmp_path):
    given = dict(in1=shifted["in1"], in2=shifted["away"], model=export_model(3))
    done = run(out=tmp_path / "o.tif", coreg="none", **given).ok()
    assert "hift" not in done.text() and done.warnings() == []


def test_a_shift_that_is_too_small_changes_no_pixel(shifted, export_model, tmp_path):
    given = dict(in1=shifted["in1"], in2=shifted["here"], model=export_model(3))
    maps = []
    for coreg in ("none", "shift"):
        path = tmp_path / f"{coreg}.tif"
        done = run(out=tmp_path / "o.tif", proba=path, coreg=coreg, **given).ok()
        maps.append(read(path))
    assert "not worth a resampling" in done.text() and (maps[0] == maps[1]).all()


def test_a_shift_that_cannot_be_measured_is_an_error_when_asked_for(export_model, tmp_path):
    rng = np.random.default_rng(8)
    files = [
        write(tmp_path / f"{k}.tif", 1000 + rng.normal(0, 9, (1, 140, 150))) for k in (1, 2)
    ]
    given = dict(in1=files[0], in2=files[1], model=export_model(1), out=tmp_path / "o.tif")
    done = run(coreg="shift", **given)
    assert 0 < done.returncode < 128 and not (tmp_path / "o.tif").exists()
    for word in ("coreg: found a shift", "cannot be measured", "-coreg report"):
        assert word in done.text(), done.log
    assert parts(tmp_path) == []
    done = run(**given).ok()
    assert "could not be measured" in done.text() and done.warnings() == []


@pytest.mark.parametrize("key", ["coreg", "align", "radiometry"])
def test_an_unknown_wish_is_refused(key, shifted, export_model, tmp_path):
    given = dict(in1=shifted["in1"], in2=shifted["here"], model=export_model(3))
    done = run(out=tmp_path / "o.tif", **given, **{key: "perhaps"})
    assert done.returncode != 0 and not (tmp_path / "o.tif").exists()
    assert key in done.text()


def test_photographs_are_moved_as_well(photographs, export_model, tmp_path):
    x1, _ = photographs
    away = np.clip(moved(x1, -0.6, 0.8), 1, 255).astype(np.uint8)
    first, second = png(tmp_path / "a.png", x1), png(tmp_path / "b.png", away[:, :-1])
    given = dict(in1=first, in2=second, model=export_model(3, top=255), align="resample")
    done = run(out=tmp_path / "o.tif", coreg="shift", **given).ok()
    before, after = shifts(done)
    assert np.abs(np.subtract(before, (-0.6, 0.8))).max() < 0.1 and np.abs(after).max() < 0.1
    assert facts(tmp_path / "o.tif").projection == ""
    assert (read(tmp_path / "o.tif")[-2:] == 255).all()


def test_maps_of_a_moved_pair_do_not_depend_on_streaming(export_model, tmp_path):
    """Coarser bands, another grid and a shift, in one resampling."""
    rng = np.random.default_rng(9)
    x1 = ndimage.gaussian_filter(texture(rng, 2, 300, 360), (0, 1, 1))
    away = moved(x1, 1.4, 0.6)
    coarse = away[:1].reshape(1, 150, 2, 180, 2).mean((2, 4))
    grid = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    other = (TRANSFORM[0] + 3.0, 10.0, 0.0, TRANSFORM[3], 0.0, -10.0)
    given = dict(
        in1=write(tmp_path / "in1.tif", x1),
        in2=[
            write(tmp_path / "b1.tif", coarse, transform=grid),
            write(tmp_path / "b2.tif", away[1], transform=other),
        ],
        model=export_model(2),
        coreg="shift",
        align="resample",
    )
    maps, logs = [], []
    for options, more in (
        ("", {}),
        (stripes(17), dict(ram=32)),
        (tiles(75), dict(ram=64, threads=1)),
    ):
        path = tmp_path / "p.tif"
        out = f"{tmp_path}/o.tif{options}"
        done = run(out=out, proba=f"{path}{options}", **given, **more).ok()
        maps.append(read(path))
        logs.append(shifts(done))
    assert (maps[0] == maps[1]).all() and (maps[0] == maps[2]).all()
    assert logs[0] == logs[1] == logs[2] and np.abs(logs[0][1]).max() < 0.2


def test_change_likelihood_does_the_same(resolutions, shifted, tmp_path):
    import likelihood

    done = likelihood.run(out=tmp_path / "a.tif", estimator="cva", **resolutions).ok()
    assert "with coarser pixels (2, 6 times)" in done.text()
    assert (facts(tmp_path / "a.tif").width, facts(tmp_path / "a.tif").height) == (WIDTH, HEIGHT)
    given = dict(in1=shifted["in1"], in2=shifted["away"], estimator="cva")
    found = {}
    for coreg in ("report", "shift"):
        path = tmp_path / f"{coreg}.tif"
        done = likelihood.run(coreg=coreg, out=path, smooth=0, **given).ok()
        found[coreg] = np.median(read(path)[5:-5, 5:-5][~shifted["truth"][5:-5, 5:-5]])
    assert np.abs(shifts(done)[1]).max() < 0.1
    assert found["shift"] < 0.7 * found["report"], found  # scores of what did not change


# ---------------------------------------------------------------------------------------------
# The radiometry of date 2

GAINS, OFFSETS = (1.4, 0.8, 1.1), (-300.0, 250.0, 40.0)  # of what date 1 would have seen


@pytest.fixture(scope="module")
def lit(tmp_path_factory):
    """A pair in another light, with changed blocks."""
    folder = tmp_path_factory.mktemp("lit")
    rng = np.random.default_rng(12)
    x1 = ndimage.gaussian_filter(texture(rng, 3, 300, 330), (0, 1, 1))
    truth = np.zeros((300, 330), bool)
    for y, x in rng.integers(20, 270, (14, 2)):
        truth[y : y + 12, x : x + 14] = True
    x2 = x1 + rng.normal(0, 15, x1.shape)
    x2[:, truth] += 900
    x2 = (x2 - np.reshape(OFFSETS, (3, 1, 1))) / np.reshape(GAINS, (3, 1, 1))
    x2[:, :9] = 0
    return dict(
        in1=write(folder / "in1.tif", x1, nodata=0),
        in2=write(folder / "in2.tif", x2, nodata=0),
        truth=truth,
    )


def test_the_light_of_date_2_is_matched(lit, export_model, tmp_path):
    model = export_model(3, gain=100.0, offset=-4.0)
    given = dict(in1=lit["in1"], in2=lit["in2"], model=model)
    found = {}
    for radiometry in ("none", "match"):
        path = tmp_path / f"{radiometry}.tif"
        done = run(out=path, radiometry=radiometry, **given).ok()
        pixels = read(path)
        assert ((pixels == 255) == (read(lit["in2"]) == 0).all(0)).all()
        found[radiometry] = score(lit["truth"][9:], pixels[9:] == 1)
        assert ("Radiometry" in done.log) == (radiometry == "match")
    assert found["match"] > 0.95 and found["none"] < 0.7, found
    logged = re.findall(
        r"b(\d): gain ([-\d.e+]+), offset ([-\d.e+]+), correlation ([\d.]+)", done.log
    )
    assert [int(b) for b, *_ in logged] == [1, 2, 3]
    for (_, gain, offset, correlation), g, o in zip(logged, GAINS, OFFSETS):
        assert abs(float(gain) / g - 1) < 0.02 and abs(float(offset) - o) < 40
        assert float(correlation) > 0.98
    number, valid = map(int, re.search(r"on (\d+) of (\d+) pixels", done.log).groups())
    assert 1000 < number < valid == 291 * 330


def test_matched_maps_do_not_depend_on_streaming(lit, export_model, tmp_path):
    given = dict(in1=lit["in1"], in2=lit["in2"], model=export_model(3), radiometry="match")
    maps = []
    for options, more in (("", {}), (tiles(75), dict(ram=32, threads=1))):
        path = tmp_path / "p.tif"
        run(out=f"{tmp_path}/o.tif{options}", proba=f"{path}{options}", **given, **more).ok()
        maps.append(read(path))
    assert (maps[0] == maps[1]).all()


def test_matching_is_refused_where_the_contract_says_so(lit, models, export_model, tmp_path):
    given = dict(in1=lit["in1"], in2=lit["in2"], out=tmp_path / "o.tif", radiometry="match")
    forbids = export_model(3, **{"otb:radiometric_matching": False})
    done = run(model=forbids, **given)
    assert 0 < done.returncode < 128
    assert "radiometry: found match" in done.text() and "otb:radiometric_matching" in done.text()
    run(model=forbids, **dict(given, radiometry="none")).ok()
    (tmp_path / "o.tif").unlink()
    # One whose dates are scaled each in its own way.
    bands = [f"{lit[key]}?&bands=1,2,3" for key in ("in1", "in2")]
    fourth = [write(tmp_path / f"{k}.tif", read(lit[f"in{k}"])[:1], nodata=0) for k in (1, 2)]
    given.update(in1=[bands[0], fourth[0]], in2=[bands[1], fourth[1]])
    done = run(model=models / "unet.pt", **given)
    assert 0 < done.returncode < 128 and not (tmp_path / "o.tif").exists()
    assert "scales the bands of its dates differently" in done.text()


def test_dates_with_nothing_in_common_are_not_matched(export_model, tmp_path):
    rng = np.random.default_rng(13)
    files = [write(tmp_path / f"{k}.tif", texture(rng, 1, 200, 200)) for k in (1, 2)]
    given = dict(in1=files[0], in2=files[1], model=export_model(1), out=tmp_path / "o.tif")
    done = run(radiometry="match", **given)
    assert 0 < done.returncode < 128 and not (tmp_path / "o.tif").exists()
    assert "too little in common" in done.text() and "-radiometry none" in done.text()
