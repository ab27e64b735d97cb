"""otbcli_ChangeEvaluation with references as they are published: OSCD's (1 and 2, no georeference), LEVIR's (0 and 255)."""

import glob

import numpy as np
import pytest
from conftest import DATA, read
from evaluation import binary, close, evaluate, ranking
from osgeo import gdal

pytestmark = pytest.mark.skipif(not (DATA / "oscd").is_dir(), reason=f"no real images in {DATA}")


def test_labels_of_oscd(tmp_path):
    """The score is the difference of a band, on the grid of the image."""
    city = DATA / "oscd" / "images" / "pisa"
    first, second = (glob.glob(str(city / f"imgs_{d}" / "*_B04.tif"))[0] for d in (1, 2))
    label = DATA / "oscd" / "labels" / "pisa" / "cm" / "pisa-cm.tif"
    a, b, truth = read(first).astype(np.float32), read(second).astype(np.float32), read(label)
    assert a.shape == b.shape == truth.shape and set(np.unique(truth)) == {1, 2}
    score = np.abs(a - b)
    image = gdal.GetDriverByName("GTiff").CreateCopy(str(tmp_path / "score.tif"), gdal.Open(first))
    image.GetRasterBand(1).WriteArray(score)
    image = None
    found = evaluate(tmp_path, mode="score", thr=500, in_=tmp_path / "score.tif", ref=label, refpos=2, refneg=1, block=64, draws=100)
    close(found["pooled"]["metrics"]["score"]["values"], ranking(score.ravel(), (truth == 2).ravel()))
    close(found["pooled"]["metrics"]["binary"]["values"], binary(score >= 500, truth == 2))
    assert found["pooled"]["metrics"]["score"]["exact"] is True  # few digital numbers


def test_labels_of_levir(tmp_path):
    labels = sorted(glob.glob(str(DATA / "levir" / "label" / "*.png")))
    assert labels
    found = evaluate(tmp_path, in_=labels, ref=labels, draws=0)
    truth = np.concatenate([read(p).ravel() > 0 for p in labels])
    assert found["pooled"]["metrics"]["binary"]["confusion"]["tp"] == np.count_nonzero(truth)
    assert found["pooled"]["metrics"]["binary"]["values"]["f1"] == 1
    assert len(found["pairs"]) == len(labels)
