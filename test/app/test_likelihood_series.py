"""Series in ChangeLikelihood: when does a pixel leave what is normal?

A simulated series with seasons, haze, clouds and two places that change on a known date.
"""

import datetime
from dataclasses import dataclass

import numpy as np
import pytest
from conftest import EPSG, TRANSFORM, facts, read, stripes, texture, tiles, write
from likelihood import grown, maps, run, same
from osgeo import gdal, ogr
from sits import together

WIDTH, HEIGHT, BANDS, DATES = 151, 137, 3, 24
EVENT = 15  # the first date, from 0, that shows the change
SCL_VALID, SCL_INVALID = (2, 4, 5, 6, 7, 11), (0, 1, 3, 8, 9, 10)
NODATA = {"out": -1, "pvalue": -1, "change": 255, "rupture": -1, "alarm": -1}
COUNT = {"out": 1, "pvalue": 1, "change": 1, "rupture": 4, "alarm": 6}


@dataclass
class Series:
    """Files and arrays of the simulation."""

    files: list
    masks: list
    days: list
    x: np.ndarray  # (dates, bands, H, W)
    valid: np.ndarray  # (dates, H, W)
    truth: np.ndarray

    def parameters(self):
        return dict(il=self.files, maskl=self.masks)

    def years(self):
        """Middles of the days as decimal years."""
        made = []
        for d in self.days:
            first = datetime.date(d.year, 1, 1)
            length = (datetime.date(d.year + 1, 1, 1) - first).days
            made.append(d.year + ((d - first).days + 0.5) / length)
        return np.array(made)

    def after_event(self):
        """Index from 1 of the first valid date that shows the change; 0: none."""
        shown = self.valid.copy()
        shown[:EVENT] = False
        return np.where(shown.any(0), shown.argmax(0) + 1, 0)


def simulate(folder, event=EVENT):
    rng = np.random.default_rng(77)
    base = texture(rng, BANDS, HEIGHT, WIDTH).astype(float)
    other = texture(rng, BANDS, HEIGHT, WIDTH).astype(float)
    truth = np.zeros((HEIGHT, WIDTH), bool)
    truth[30:52, 25:52] = truth[85:107, 95:120] = True
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    start = datetime.date(2019, 1, 12)
    days = [start + datetime.timedelta(days=int(k * 37 + rng.integers(0, 9))) for k in range(DATES)]
    series, valid = [], []
    for k in range(DATES):
        phase = 2 * np.pi * k / 9.9
        gain = 1 + 0.15 * np.sin(phase + np.arange(BANDS))[:, None, None]
        ground = np.where(truth & (k >= event), other + 1500, base)
        image = gain * ground + 200 * np.cos(phase) + 60 * rng.standard_normal(base.shape)
        good = np.ones((HEIGHT, WIDTH), bool)
        for _ in range(3):
            centre = rng.uniform(0, 1, 2) * (HEIGHT, WIDTH)
            cloud = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.uniform(8, 25) ** 2
            image[:, cloud] = 7000 + 300 * rng.standard_normal((BANDS, cloud.sum()))
            good &= ~cloud
        series.append(image)
        valid.append(good)
    series, valid = np.array(series, np.float32), np.array(valid)
    series[:, :, 120:, :20] = 0  # never any data
    series[3, :, :9, :30] = 0
    series[5, 1, 70:75, 10] = np.nan
    files, masks = [], []
    for k, day in enumerate(days):
        files.append(write(folder / f"s2_{day:%Y%m%d}.tif", series[k], nodata=0))
        masks.append(write(folder / f"cloud{k}.tif", (~valid[k]).astype(np.uint8) * 3))
    valid &= np.isfinite(series).all(1) & (series != 0).any(1)
    return Series(files, masks, days, series, valid, truth)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def whole(series, tmp_path_factory):
    """``(maps, folder, run)`` with default parameters, in one block."""
    folder = tmp_path_factory.mktemp("whole")
    found, done = maps(folder, list(NODATA), **series.parameters())
    return found, folder, done


# ---------------------------------------------------------------------------------------------
# What is found


def test_files_say_what_they_hold(whole, series):
    found, folder, done = whole
    ever = series.valid.any(0)
    for name, count in COUNT.items():
        f = facts(folder / f"{name}.tif")
        kind = "Byte" if name == "change" else "Float32"
        assert (f.bands, f.kind, f.nodata) == (count, kind, NODATA[name]), name
        assert (f.width, f.height, f.transform, f.epsg) == (WIDTH, HEIGHT, TRANSFORM, str(EPSG))
        first = found[name].reshape(count, HEIGHT, WIDTH)
        assert ((first[0] != NODATA[name]) == ever).all(), name
        assert ((first == NODATA[name]).all(0) == ~ever).all(), name
        assert np.isfinite(first).all(), name
        assert gdal.Open(str(folder / f"{name}.tif")).GetMetadataItem("OTBTORCH_SETTINGS")
    for name, words in (
        ("rupture", ["first date after", "decimal year", "statistic", "valid dates"]),
        ("alarm", ["CUSUM", "decimal year", "onset", "highest CUSUM", "martingale", "log10"]),
    ):
        image = gdal.Open(str(folder / f"{name}.tif"))
        for k, word in enumerate(words):
            assert word in image.GetRasterBand(k + 1).GetDescription()
    assert f"{DATES} dates from" in done.log and "3 bands" in done.log
    alarms = int((found["change"] == 1).sum())
    assert f"Of {ever.sum()} pixels with data, {alarms} raised the martingale's alarm" in done.log


def test_ruptures_are_where_and_when_something_happened(whole, series):
    rupture = whole[0]["rupture"]
    inside = ~grown(~series.truth, 3)
    assert inside.sum() > 500
    wanted = series.after_event()
    assert (rupture[0] == wanted)[inside].mean() > 0.85
    assert (np.abs(rupture[0] - wanted) <= 1)[inside].mean() > 0.95
    outside = ~grown(series.truth, 8) & series.valid.any(0)
    assert np.median(rupture[2][inside]) > 1.3 * np.median(rupture[2][outside])
    assert np.median(whole[0]["pvalue"][inside]) > 2
    assert np.median(whole[0]["out"][inside]) > 5 * max(1, np.median(whole[0]["out"][outside]))


def test_rupture_and_alarm_are_consistent(whole, series):
    found = whole[0]
    ever = series.valid.any(0)
    rupture, alarm = found["rupture"], found["alarm"]
    assert (rupture[3] == series.valid.sum(0))[ever].all()
    years = np.concatenate([[0.0], series.years()]).astype(np.float32)
    for index, year in ((rupture[0], rupture[1]), (alarm[0], alarm[1])):
        whole_numbers = index[ever].astype(int)
        assert (whole_numbers == index[ever]).all()
        assert whole_numbers.min() >= 0 and whole_numbers.max() <= DATES
        assert np.allclose(year[ever], years[whole_numbers], atol=1e-3)
        named = ever & (index > 0)
        at = np.clip(index.astype(int) - 1, 0, DATES - 1)
        assert np.take_along_axis(series.valid, at[None], 0)[0][named].all(), "a valid date"
    raised = ever & (alarm[0] > 0)
    assert (alarm[2] <= alarm[1])[raised].all() and (alarm[2] > 0)[raised].all()
    assert (alarm[2] == 0)[ever & ~raised].all()
    assert (found["out"] == alarm[3])[ever].all()
    assert ((found["change"] == 1) == (alarm[4] > 0))[ever].all()
    assert (alarm[5] >= 2 - 1e-4)[ever & (found["change"] == 1)].all(), "at least 1 / alpha"
    assert (alarm[5] < 2 + 1e-4)[ever & (found["change"] == 0)].all()
    assert (found["pvalue"] <= np.log10(200) + 1e-4)[ever].all()


def test_alarms_are_raised_inside_and_hardly_outside(whole, series):
    found = whole[0]
    inside = ~grown(~series.truth, 3)
    outside = ~grown(series.truth, 8) & series.valid.any(0)
    alarm = found["alarm"]
    assert (alarm[0] > 0)[inside].mean() > 0.95, "of the CUSUM"
    assert (alarm[0] > EVENT)[inside].mean() > 0.7, "and few before the event"
    late = alarm[0][inside] - series.after_event()[inside]
    assert np.median(late) <= 2
    assert (alarm[0] > 0)[outside].mean() < 0.35
    assert (found["change"] == 1)[outside].mean() < 4 * 0.01, "alpha is 0.01"
    assert np.median(alarm[5][inside]) > np.median(alarm[5][outside]) + 0.5


def test_a_higher_rate_raises_more_alarms(whole, series, tmp_path):
    found, _ = maps(tmp_path, ["out", "change"], alpha=0.2, **series.parameters())
    inside = ~grown(~series.truth, 3)
    outside = ~grown(series.truth, 8) & series.valid.any(0)
    assert (found["change"] == 1)[inside].mean() > 0.6
    assert (found["change"] == 1)[outside].mean() < 0.3
    assert ((found["change"] == 1) >= (whole[0]["change"] == 1)).all()
    same(dict(out=found["out"]), whole[0])


def test_where_nothing_happens_alarms_are_few(tmp_path):
    calm = simulate(tmp_path, DATES)
    names = ["out", "pvalue", "change", "alarm"]
    found, _ = maps(tmp_path / "maps", names, alpha=0.05, **calm.parameters())
    ever = calm.valid.any(0)
    assert (found["change"] == 1)[ever].mean() < 2 * 0.05
    assert (found["pvalue"] >= 2)[ever].mean() < 5 * 0.01
    assert (found["pvalue"] >= -np.log10(0.05) - 1e-6)[ever].mean() < 3 * 0.05
    assert (found["alarm"][0] > 0)[ever].mean() < 0.35


def test_reference_and_smoothing_are_parameters(whole, series, tmp_path):
    jobs = {
        "named": dict(reference=0, smooth=1.5),
        "longer": dict(reference=12),
        "plain": dict(smooth=0),
    }
    made = together(
        {
            name: lambda name=name, more=more: maps(
                tmp_path / name, ["out", "rupture"], **more, **series.parameters()
            )[0]
            for name, more in jobs.items()
        }
    )
    same(made["named"], whole[0])
    inside = ~grown(~series.truth, 3)
    for name in ("longer", "plain"):
        assert not (made[name]["out"] == whole[0]["out"]).all()
        assert (made[name]["rupture"][0] == series.after_event())[inside].mean() > 0.6
    assert (made["longer"]["rupture"][3] == whole[0]["rupture"][3]).all()


def test_seed_breaks_ties_and_shuffles_only(whole, series, tmp_path):
    found, _ = maps(tmp_path, list(NODATA), seed=5, **series.parameters())
    same({k: found[k] for k in ("out", "rupture")}, whole[0])
    same({"alarm": found["alarm"][:4].copy()}, {"alarm": whole[0]["alarm"][:4].copy()})
    assert not (found["pvalue"] == whole[0]["pvalue"]).all()
    assert not (found["alarm"][5] == whole[0]["alarm"][5]).all()
    assert (found["change"] == whole[0]["change"]).mean() > 0.9


# ---------------------------------------------------------------------------------------------
# However the files hold it, and however it is written


@pytest.fixture(scope="module")
def forms(series, tmp_path_factory):
    """``{name: parameters}`` of the same series in other files."""
    folder = tmp_path_factory.mktemp("forms")
    rng = np.random.default_rng(1)
    order = rng.permutation(DATES)
    days = [f"{d:%Y%m%d}" for d in series.days]
    clouds = np.stack([read(m) for m in series.masks])
    (folder / "dates.txt").write_text("\n".join(days) + "\n")
    (folder / "mixed.txt").write_text("\n".join(days[k] for k in order))
    (folder / "iso.txt").write_text("\n".join(f"{d:%Y-%m-%d}" for d in series.days))
    stack = write(folder / "stack.tif", series.x.reshape(-1, HEIGHT, WIDTH), nodata=0)
    mixed = write(folder / "mixed.tif", series.x[order].reshape(-1, HEIGHT, WIDTH), nodata=0)
    one = write(folder / "clouds.tif", clouds, kind=gdal.GDT_Byte)
    one_mixed = write(folder / "clouds_mixed.tif", clouds[order], kind=gdal.GDT_Byte)
    clear = (clouds == 0).astype(np.uint8) * 7
    valid = write(folder / "valid.tif", clear, kind=gdal.GDT_Byte)
    scl = np.where(
        clouds == 0, rng.choice(SCL_VALID, clouds.shape), rng.choice(SCL_INVALID, clouds.shape)
    )
    scl = write(folder / "scl.tif", scl.astype(np.uint8), kind=gdal.GDT_Byte)
    unmasked = np.where((clouds != 0)[:, None], np.float32(0), series.x)
    zeros = write(folder / "zeros.tif", unmasked.reshape(-1, HEIGHT, WIDTH), nodata=0)
    unmasked = np.where((clouds != 0)[:, None], np.float32(np.nan), series.x)
    nans = write(folder / "nans.tif", unmasked.reshape(-1, HEIGHT, WIDTH), nodata=0)
    shuffled = [series.files[k] for k in order]
    dates = dict(dates=folder / "dates.txt")
    return {
        "stack": dict(dates, il=stack, maskl=one),
        "stack, mixed": dict(il=mixed, maskl=one_mixed, dates=folder / "mixed.txt"),
        "stack, a mask a date": dict(il=stack, maskl=series.masks, dates=folder / "iso.txt"),
        "files, mixed": dict(il=shuffled, maskl=[series.masks[k] for k in order]),
        "files, one mask": dict(il=series.files, maskl=one),
        "files, mixed, dates": dict(il=shuffled, maskl=one_mixed, dates=folder / "mixed.txt"),
        "valid": dict(dates, il=stack, maskl=valid, masktype="valid"),
        "scl": dict(dates, il=stack, maskl=scl, masktype="scl"),
        "no-data": dict(dates, il=zeros),
        "nan": dict(dates, il=nans),
    }


FORMS = [
    "stack",
    "stack, mixed",
    "stack, a mask a date",
    "files, mixed",
    "files, one mask",
    "files, mixed, dates",
    "valid",
    "scl",
    "no-data",
    "nan",
]
WINDOW = (31, 17, 97, 101)
WAYS = {
    "ram 8, tiles": (tiles(64), dict(ram=8), list(NODATA), None),
    "one thread, stripes": (stripes(17), dict(threads=1), list(NODATA), None),
    "ram 1024": ("", dict(ram=1024), list(NODATA), None),
    "ram 1, one thread": ("", dict(ram=1, threads=1), list(NODATA), None),
    "window": ("?", {}, list(NODATA), WINDOW),
    "window in tiles": (tiles(50), {}, ["out", "rupture"], WINDOW),
    "out alone": (stripes(31), {}, ["out"], None),
    "rupture": ("", {}, ["out", "rupture"], None),
    "alarm": ("", {}, ["out", "alarm"], None),
    "pvalue and change": ("", {}, ["out", "pvalue", "change"], None),
}


@pytest.fixture(scope="module")
def others(forms, series, tmp_path_factory):
    """``{form or way: (maps, run)}``."""
    folder = tmp_path_factory.mktemp("others")

    def job(name, parameters, options="", names=tuple(NODATA), window=None):
        here = folder / name.replace(" ", "_").replace(",", "")
        box = "&box=" + ":".join(map(str, window)) if window else ""
        return lambda: maps(here, names, options + box, **parameters)

    jobs = {name: job(name, forms[name]) for name in FORMS}
    for name, (options, more, names, window) in WAYS.items():
        jobs[name] = job(name, dict(series.parameters(), **more), options, names, window)
    return together(jobs)


@pytest.mark.parametrize("form", FORMS)
def test_the_same_series_in_other_files_gives_the_same_maps(form, others, whole):
    same(others[form][0], whole[0])


@pytest.mark.parametrize("way", WAYS)
def test_maps_are_the_same(way, others, whole):
    found, done = others[way]
    same(found, whole[0], WAYS[way][3])
    if "streaming" in WAYS[way][0]:
        assert done.blocks() > 1, done.log


def test_masks_matter(series, whole, tmp_path):
    found, _ = maps(tmp_path, ["out", "rupture"], il=series.files)
    ever = series.valid.any(0)
    assert (found["rupture"][3] >= whole[0]["rupture"][3])[ever].all()
    assert (found["rupture"][3] > whole[0]["rupture"][3])[ever].mean() > 0.5


def test_a_mask_of_the_scene_counts_for_all_dates(series, tmp_path):
    mask = np.ones((HEIGHT, WIDTH), np.uint8)
    mask[40:60, 50:90] = 0
    path = write(tmp_path / "mask.tif", mask, kind=gdal.GDT_Byte)
    found, _ = maps(tmp_path, ["out", "rupture"], mask=path, **series.parameters())
    wanted = series.valid.any(0) & (mask != 0)
    assert ((found["out"] != -1) == wanted).all()
    assert ((found["rupture"] != -1).any(0) == wanted).all()


def test_objects_of_a_series(series, tmp_path):
    paths = dict(out=tmp_path / "o.tif", change=tmp_path / "c.tif", objects=tmp_path / "o.gpkg")
    run(alpha=0.2, minsize=100, fill=100, **paths, **series.parameters()).ok()
    data = ogr.Open(str(paths["objects"]))
    found = [f.GetField("area_px") for f in data.GetLayer(0)]
    assert 1 <= len(found) <= 12 and max(found) > 0.3 * series.truth.sum() / 2
    assert max(found) <= (read(paths["change"]) == 1).sum() + 100 * 12


def test_a_series_of_one_band_and_eight_dates(series, tmp_path):
    """The smallest there is; two thirds of the dates or more say what is normal."""
    paths = [f"{p}?&bands=2" for p in series.files[10:18]]
    found, _ = maps(tmp_path, list(NODATA), il=paths, maskl=series.masks[10:18])
    ever = found["out"] != -1
    assert ever.mean() > 0.9
    assert found["rupture"][3].max() == 8
    assert all(np.isfinite(m).all() for m in found.values())


def test_dates_without_data_are_as_if_they_were_not_there(series, whole, tmp_path):
    """One more date that is masked altogether: indices count it, nothing else changes."""
    day = series.days[2] + datetime.timedelta(days=3)
    extra = write(tmp_path / f"s2_{day:%Y%m%d}.tif", series.x[9], nodata=0)
    black = write(tmp_path / "black.tif", np.full((HEIGHT, WIDTH), 9, np.uint8))
    names = ["out", "rupture"]
    given = dict(il=series.files + [extra], maskl=series.masks + [black])
    found, _ = maps(tmp_path / "a", names, reference=8, **given)
    plain, _ = maps(tmp_path / "b", names, reference=8, **series.parameters())
    same(dict(out=found["out"]), plain)
    same(dict(rupture=found["rupture"][1:].copy()), dict(rupture=plain["rupture"][1:].copy()))
    before = plain["rupture"][0]
    assert (found["rupture"][0] == np.where(before > 3, before + 1, before)).all()


def test_masks_of_larger_pixels_are_repeated(series, tmp_path):
    """As those of 20 m are beside images of 10 m."""
    clouds = np.stack([read(m) for m in series.masks])
    wide = np.pad(clouds, ((0, 0), (0, HEIGHT % 2), (0, WIDTH % 2)), "edge")
    rows, columns = wide.shape[1] // 2, wide.shape[2] // 2
    coarse = wide.reshape(DATES, rows, 2, columns, 2).max((2, 4))
    fine = coarse.repeat(2, 1).repeat(2, 2)[:, :HEIGHT, :WIDTH]
    transform = (TRANSFORM[0], 20.0, 0.0, TRANSFORM[3], 0.0, -20.0)
    one = write(tmp_path / "coarse.tif", coarse, transform=transform, kind=gdal.GDT_Byte)
    other = write(tmp_path / "fine.tif", fine, kind=gdal.GDT_Byte)
    made = [
        maps(tmp_path / m.stem, ["out", "rupture"], il=series.files, maskl=m)[0]
        for m in (one, other)
    ]
    same(made[0], made[1])
