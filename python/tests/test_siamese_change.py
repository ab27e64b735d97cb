"""The default network of SiameseCD and its recipe."""

import json
import os

import numpy as np
import pytest
import torch

from otbtorch import contract as contracts
from otbtorch.models.change_ratio import ChangeRatio
from otbtorch.models.siamese_change import Blur, SiameseChange
from otbtorch.recipes import train_change, train_siamese

MODELS = train_siamese.__file__.split("python")[0] + "data/models/"


def network(width=8):
    torch.manual_seed(0)
    return SiameseChange(ChangeRatio(4, width), [1.5, 3.0, 6.0], [-4.0, 2.0], 5.0, 2.0).eval()


def inputs(height, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    dates = [torch.rand(1, 4, height, width, generator=g) for _ in "12"]
    made = [torch.randn(1, c, height, width, generator=g) for c in (16, 16, 1)]
    return dates + made


def test_logit_a_pixel_whatever_the_size_and_scripted():
    net = network()
    scripted = torch.jit.script(net)
    with torch.no_grad():
        for height, width in ((16, 24), (64, 40)):
            x = inputs(height, width)
            assert net(*x).shape == (1, 1, height, width)
            assert torch.allclose(scripted(*x), net(*x), atol=1e-5)


def test_beyond_the_halo_nothing_is_seen():
    net = network(width=32)
    one, other = inputs(160, 160), inputs(160, 160, seed=1)
    edge = 24
    other = [torch.cat([b[..., :edge, :], a[..., edge:, :]], dim=2) for a, b in zip(one, other)]
    with torch.no_grad():
        a, b = net(*one), net(*other)
    start = edge + train_siamese.HALO
    assert torch.equal(a[..., start:, :], b[..., start:, :])
    assert not torch.equal(a, b)


def test_a_patch_away_from_its_borders_is_the_whole_image():
    net, whole = network(width=32), inputs(192, 192)
    with torch.no_grad():
        a = net(*whole)[..., 32 + 56 : 160 - 56, 32 + 56 : 160 - 56]
        b = net(*(v[..., 32:160, 32:160].contiguous() for v in whole))[..., 56:-56, 56:-56]
    assert torch.allclose(a, b, atol=1e-5)


def test_dates_may_be_swapped():
    net, (x1, x2, r2, r1, s) = network(), inputs(32, 32)
    with torch.no_grad():
        assert torch.allclose(net(x1, x2, r2, r1, s), net(x2, x1, r1, r2, s), atol=1e-5)


def test_green_at_both_dates_is_less_likely_built_upon():
    """A meadow that stays lowers the logit by its weight, one that is built upon does not."""
    net, (x1, x2, r2, r1, s) = network(), inputs(32, 32)
    grey = torch.full_like(x1, 0.2)
    meadow = grey.clone()
    meadow[:, 3] = 0.6
    with torch.no_grad():
        stays, lost, town = (net(a, b, r2, r1, s) for a, b in ((meadow, meadow), (meadow, grey), (grey, grey)))
    # NDVI 0.5, weight 3, deviation 2.
    assert torch.allclose(town - stays, torch.full_like(town, 3.0 * 0.5 / 2.0), atol=1e-5)
    assert torch.allclose(town, lost, atol=1e-5)


def test_blur_is_that_of_the_recipe():
    image = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    blurred = Blur(train_siamese.SIGMA)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    assert np.abs(blurred - train_change.smooth(image, train_siamese.SIGMA)).max() < 1e-5


def test_pixels_without_data_give_finite_logits():
    with torch.no_grad():
        assert torch.isfinite(network()(*(0 * v for v in inputs(16, 16)))).all()


def scene(rng, size=128):
    base = train_change.smooth(rng.normal(size=(size, size)).astype(np.float32), 2)
    return [np.stack([base * 800 + 60 * rng.normal(size=base.shape) + 900 for _ in range(4)]).astype(np.float32) for _ in "12"]


def test_threshold_is_that_many_deviations_above_the_mean():
    pair = train_siamese.Pair("one", *scene(np.random.default_rng(0)))
    torch.manual_seed(0)
    logits = train_siamese.score(train_siamese.assemble(train_change.build_network().eval(), [pair]), pair)
    assert logits.mean() == pytest.approx(-train_siamese.DEVIATIONS, abs=1e-3)
    assert logits.std() == pytest.approx(1.0, abs=1e-3)


def test_contract_is_valid():
    assert contracts.validate(train_siamese.contract("siamese-s2")) == []


def test_shipped_model():
    """It has the contract of the recipe, is small, and its density ratio is change-s2."""
    extra = {"mlm.json": ""}
    path = MODELS + "siamese-s2.pt"
    net = torch.jit.load(path, _extra_files=extra)
    assert os.path.getsize(path) <= 4_000_000
    found, expected = json.loads(extra["mlm.json"])["properties"], train_siamese.contract("siamese-s2")["properties"]
    for key in ("otb:tiling", "otb:calibration", "mlm:input"):
        assert found[key] == expected[key]
    with torch.no_grad():
        assert net(*inputs(32, 40)).shape == (1, 1, 32, 40)
    mine, theirs = net.state_dict(), torch.jit.load(MODELS + "change-s2.pt").state_dict()
    assert all(torch.equal(mine["ratio." + k], v) for k, v in theirs.items())


def write_city(folder, rng):
    from osgeo import gdal, osr

    grid = osr.SpatialReference()
    grid.ImportFromEPSG(32631)
    for number, date in zip("12", scene(rng)):
        os.makedirs(os.path.join(folder, "imgs_" + number))
        for name, band in zip(train_siamese.BANDS, date):
            path = os.path.join(folder, "imgs_" + number, "S2_%s.tif" % name)
            raster = gdal.GetDriverByName("GTiff").Create(path, band.shape[1], band.shape[0], 1, gdal.GDT_Float32)
            raster.SetGeoTransform((500000, 10, 0, 5400000, 0, -10))
            raster.SetProjection(grid.ExportToWkt())
            raster.GetRasterBand(1).WriteArray(band)


def test_training_is_repeatable_and_reads_no_label(tmp_path):
    """The dataset has no labels: training does without, and --folds says what it misses."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    for city in ("one", "other"):
        write_city(str(data / "images" / city), rng)
    out = tmp_path / "out"
    assert train_siamese.main(["--data", str(data), "--out", str(out), "--steps", "2"]) == 0
    written = torch.jit.load(str(out / "siamese-s2.pt"))
    pairs = [train_siamese.read_pair(str(data), city) for city in ("one", "other")]
    again = train_siamese.train(pairs, train_change.Options(steps=2), 0)
    assert all(torch.equal(written.state_dict()[k], v) for k, v in again.state_dict().items())
    with torch.no_grad():
        assert torch.allclose(written(*inputs(32, 32)), again(*inputs(32, 32)), atol=1e-4)
    with pytest.raises(FileNotFoundError, match="labels"):
        train_siamese.main(["--data", str(data), "--folds", "--steps", "1"])
