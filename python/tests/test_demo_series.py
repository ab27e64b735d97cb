"""The demonstration of a series: the simulated season, its scores and its picture."""

import numpy as np
import pytest
from otbtorch import demo_series
from otbtorch.recipes import demo_series as recipe

gdal = pytest.importorskip("osgeo.gdal")


def test_the_double_logistic_is_half_way_up_and_down_at_its_dates():
    curve = lambda day: recipe.double_logistic(day, 0.2, 0.8, 120, 0.2, 260, 0.2)  # noqa: E731
    assert curve(120) == pytest.approx(0.5, abs=1e-3)
    assert curve(260) == pytest.approx(0.5, abs=1e-3)
    assert curve(190) == pytest.approx(0.8, abs=1e-3)
    assert curve(10) == pytest.approx(0.2, abs=1e-3)


def test_the_season_is_the_same_each_time_and_its_clouds_are_masked():
    label, days, image, mask = recipe.simulate(3)
    again = recipe.simulate(3)
    assert days == again[1] and (image == again[2]).all() and (mask == again[3]).all()
    assert sorted(np.unique(label)) == [1, 2, 3]
    assert image.shape == (len(days), 4, recipe.HEIGHT, recipe.WIDTH)
    assert days == sorted(set(days))
    bright = image[:, 0] > 4000  # blue of clouds; no ground comes near it
    assert bright.any() and mask[bright].all()


def test_accuracy_counts_what_has_a_label_and_a_truth():
    labels = np.array([[1, 1, 2, 0], [2, 2, 2, 1]])
    truth = np.array([[1, 2, 2, 1], [2, 2, 0, 1]])
    overall, macro, each = demo_series.accuracy(labels, truth)
    # Class 1: 2 hits, 3 said, 2 true; class 2: 3 hits, 3 said, 4 true.
    assert overall == pytest.approx(5 / 6)
    assert dict(each) == {1: pytest.approx(4 / 5), 2: pytest.approx(6 / 7)}
    assert macro == pytest.approx((4 / 5 + 6 / 7) / 2)
    assert demo_series.accuracy(np.zeros((2, 2)), np.ones((2, 2))) == (0.0, 0.0, [])


def test_the_report_prints_scores_and_draws(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        demo_series, "classes_of",
        lambda model: {1: ("maize", "#E6B800"), 2: ("grass", "#6AA84F"), 3: ("none", "#7F7F7F")},
    )  # fmt: skip
    folder = tmp_path / "series"
    assert recipe.main(["--out", str(folder)]) == 0
    truth = gdal.Open(str(folder / "truth.tif")).ReadAsArray()
    maps = {"labels": truth, "confidence": truth / 3.0, "counts": truth * 10}
    for name, pixels in maps.items():
        recipe.write(str(tmp_path / f"{name}.tif"), pixels[None], gdal.GDT_Float32)
    assert demo_series.main(
        ["--series", str(folder), "--model", "any", "--out", str(tmp_path / "series.png"),
         "--labels", str(tmp_path / "labels.tif"), "--confidence", str(tmp_path / "confidence.tif"),
         "--valid-dates", str(tmp_path / "counts.tif")]
    ) == 0  # fmt: skip
    assert "overall accuracy 1.000, macro F1 1.000" in capsys.readouterr().out
    picture = gdal.Open(str(tmp_path / "series.png"))
    assert picture.RasterXSize == 1280 and picture.RasterYSize > 700
