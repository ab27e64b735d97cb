"""What files say of themselves is heeded: no-data of masks, pyramids, dates in names, descriptions."""

import numpy as np
import pytest
import sits

from conftest import EPSG, read, write
from osgeo import gdal
from sits import HEIGHT, WIDTH, case_of, grid, run, simulation, write_dates, write_raster  # noqa: F401

BANDS = ["B2", "B3", "B4", "B8"]


@pytest.fixture(scope="module")
def scene(simulation, case_of, tmp_path_factory):
    """A gap-filling network, its four bands as a stack and as images, masks: folder and inputs."""
    folder = tmp_path_factory.mktemp("no-guess")
    case = case_of("tempcnn_grid")
    series = next(
        i for i in case.contract["properties"]["mlm:input"] if i["otb:role"] == "sits"
    )
    names = [b for b in series["bands"] if isinstance(b, str)]
    bands = [simulation.s2.bands.index(b) for b in names]
    values = np.nan_to_num(simulation.s2.values[:, bands], posinf=1000.0).astype(np.int16)
    values = np.clip(values, 1, 9000)
    valid = simulation.s2.valid
    dates = simulation.s2.dates
    made = dict(
        model=case.path,
        dates=write_dates(folder / "dates.txt", dates),
        stack=write_raster(folder / "stack.tif", values, gdal.GDT_Int16),
        mask=(~valid).astype(np.uint8) * 2,
        names=names,
        values=values,
        days=dates,
    )
    return folder, made


def labels(made, folder, name="out", **more):
    """The label map of a run, and the run."""
    parameters = dict(model=made["model"], dates=made["dates"])
    parameters["in"] = made["stack"]
    parameters["out"] = folder / f"{name}.tif"
    parameters.update(more)
    parameters = {k: v for k, v in parameters.items() if v is not None}
    done = run(**parameters).ok()
    return read(parameters["out"]), done


def assert_refused(done, *fragments):
    """A clear end: status, and a message with these fragments."""
    assert 0 < done.returncode < 128, f"exit status {done.returncode}:\n{done.log}"
    message = " ".join(done.log[done.log.index("(FATAL)") :].split())
    for fragment in fragments:
        assert fragment in message, f'"{fragment}" is not in: {message}'


def finer(mask, factor=2):
    return mask.repeat(factor, 1).repeat(factor, 2)


@pytest.mark.parametrize("nodata", [None, 0, 255])
def test_a_mask_means_the_same_on_any_grid_whatever_no_data_it_declares(scene, tmp_path, nodata):
    _, made = scene
    same = write_raster(tmp_path / "same.tif", made["mask"], gdal.GDT_Byte, nodata=nodata)
    fine = write_raster(
        tmp_path / "fine.tif", finer(made["mask"]), gdal.GDT_Byte, grid(5), nodata=nodata
    )
    wanted, _ = labels(made, tmp_path, "wanted", maskl=same)
    found, done = labels(made, tmp_path, "found", maskl=fine)
    assert "resampled" in done.log
    assert (found == wanted).all() and (wanted != 0).mean() > 0.9


def test_no_data_of_a_mask_is_not_valid(scene, tmp_path):
    _, made = scene
    valid = np.where(made["mask"] == 0, 1, 0).astype(np.uint8)
    valid[:, :4] = 255  # not acquired
    mask = write_raster(tmp_path / "valid.tif", valid, gdal.GDT_Byte, nodata=255)
    found, _ = labels(made, tmp_path, maskl=mask, masktype="valid")
    assert (found[:4] == 0).all() and (found[6:] != 0).mean() > 0.9
    wanted = write(tmp_path / "roi.tif", valid[0], epsg=EPSG, nodata=255, kind=gdal.GDT_Byte)
    found, _ = labels(made, tmp_path, "roi-labels", mask=wanted)
    assert (found[:4] == 0).all()


def test_pyramids_of_a_mask_change_nothing(scene, tmp_path):
    _, made = scene
    path = write_raster(tmp_path / "fine.tif", finer(made["mask"], 4), gdal.GDT_Byte, grid(2.5))
    before, _ = labels(made, tmp_path, "before", maskl=path)
    image = gdal.Open(str(path), gdal.GA_Update)
    image.BuildOverviews("MODE", [2, 4])
    image = None
    after, _ = labels(made, tmp_path, "after", maskl=path)
    assert (before == after).all()


def images(made, folder, days, names=None):
    return [
        write_raster(folder / f"S2_{d:%Y%m%d}.tif", v, gdal.GDT_Int16, names=names)
        for d, v in zip(days, made["values"])
    ]


def test_dates_in_names_that_contradict_the_dates_are_refused(scene, tmp_path):
    _, made = scene
    days = list(made["days"])
    days[3] = days[3].replace(day=days[3].day % 27 + 1)
    files = images(made, tmp_path, days)
    out = tmp_path / "out.tif"
    done = run(model=made["model"], il=files, dates=made["dates"], out=out)
    assert_refused(done, "il", f"S2_{days[3]:%Y%m%d}.tif", "other dates", "-datesfrom file")
    wanted, _ = labels(made, tmp_path, "wanted")
    found, _ = labels(
        made, tmp_path, "by-place", **{"in": None}, il=files, datesfrom="file"
    )
    assert (found == wanted).all()


def test_a_mask_that_is_missing_does_not_shift_the_others(scene, tmp_path):
    """With dates from names, a list of masks with one date missing and another one too many."""
    _, made = scene
    days = list(made["days"])
    files = images(made, tmp_path, days)
    shifted = days[1:] + [days[-1].replace(year=days[-1].year + 1)]
    masks = [
        write_raster(tmp_path / f"mask_{d:%Y%m%d}.tif", m, gdal.GDT_Byte)
        for d, m in zip(shifted, made["mask"])
    ]
    out = tmp_path / "out.tif"
    done = run(model=made["model"], il=files, maskl=masks, datesfrom="names", out=out)
    assert_refused(done, "maskl", masks[-1].name, "other dates")


def test_descriptions_that_contradict_the_order_are_refused(scene, tmp_path):
    _, made = scene
    wrong = made["names"][::-1]
    stack = write_raster(
        tmp_path / "stack.tif", made["values"], gdal.GDT_Int16, names=wrong * len(made["days"])
    )
    done = run(model=made["model"], dates=made["dates"], out=tmp_path / "o.tif", **{"in": stack})
    assert_refused(done, "in (stack.tif)", f"described as {wrong[0]}", made["names"][0], "-bands")
    # Named by hand, the files' own words count no more.
    wanted, _ = labels(made, tmp_path, "wanted")
    found, _ = labels(made, tmp_path, "named", bands=made["names"], **{"in": stack})
    assert (found == wanted).all()


def test_an_image_described_otherwise_than_the_first_is_refused(scene, tmp_path):
    _, made = scene
    files = images(made, tmp_path, made["days"], made["names"])
    write_raster(files[2], made["values"][2], gdal.GDT_Int16, names=made["names"][::-1])
    done = run(model=made["model"], il=files, dates=made["dates"], out=tmp_path / "out.tif")
    assert_refused(done, files[2].name, "described as", "-bands")


def test_no_data_is_that_of_each_band_when_resampled(scene, tmp_path):
    _, made = scene
    coarse = np.full((len(made["days"]) * 4, -(-HEIGHT // 2), -(-WIDTH // 2)), 900, np.int16)
    for band in range(len(coarse)):
        coarse[band, :10] = -1 - band % 4
    path = write_raster(tmp_path / "coarse.tif", coarse, gdal.GDT_Int16, grid(20))
    image = gdal.Open(str(path), gdal.GA_Update)
    part = tmp_path / "bands.vrt"
    gdal.BuildVRT(
        str(part),
        [
            gdal.BuildVRT(
                str(tmp_path / f"{b}.vrt"), str(path), bandList=[b + 1],
                srcNodata=int(-1 - b % 4), VRTNodata=int(-1 - b % 4),
            )
            for b in range(image.RasterCount)
        ],
        separate=True,
    )  # fmt: skip
    image = None
    reference = write_raster(tmp_path / "grid.tif", made["values"], gdal.GDT_Int16)
    files = [str(part)]
    words = dict(model=made["model"], out=tmp_path / "out.tif", nvalid=tmp_path / "n.tif")
    # The second series brings all the bands; the first one gives its grid alone.
    words.update(il=reference, dates=made["dates"], bands=["x1", "x2", "x3", "x4"])
    words.update(il2=files, dates2=made["dates"], bands2=made["names"])
    run(**words).ok()
    found = read(words["out"])
    assert (found[:18] == 0).all() and (found[22:] != 0).all()


@pytest.mark.parametrize(
    "key, kind, expected",
    [("confmap", "uint8", "float"), ("probamap", "uint8", "1000"), ("entropy", "int16", "float")],
)
def test_a_type_that_cannot_hold_the_values_is_refused(scene, tmp_path, key, kind, expected):
    _, made = scene
    parameters = dict(model=made["model"], dates=made["dates"])
    parameters.update({"in": made["stack"], key: [tmp_path / "x.tif", kind]})
    assert_refused(run(**parameters), key, f"type {kind}", expected)
    assert not list(tmp_path.glob("x*"))


def test_a_sensor_that_the_model_does_not_take_is_refused(scene, tmp_path):
    _, made = scene
    done = run(
        model=made["model"], dates=made["dates"], out=tmp_path / "o.tif", il2=made["stack"],
        dates2=made["dates"], **{"in": made["stack"]},
    )  # fmt: skip
    assert_refused(done, "il2", "a series", "takes no second sensor")


def test_signed_bytes_are_refused(scene, tmp_path):
    _, made = scene
    driver = gdal.GetDriverByName("GTiff")
    options = ["PIXELTYPE=SIGNEDBYTE"]
    path = tmp_path / "signed.tif"
    image = driver.Create(str(path), WIDTH, HEIGHT, 4 * len(made["days"]), gdal.GDT_Byte, options)
    image = None
    done = run(
        model=made["model"], dates=made["dates"], out=tmp_path / "o.tif", **{"in": path}
    )
    assert_refused(done, "in (signed.tif)", "signed bytes")


def test_members_of_an_ensemble_have_temperatures_of_their_own(scene, case_of, tmp_path):
    """Each network's probabilities are softened by its own temperature before the mean."""
    import copy

    import otbtorch

    _, made = scene
    case = case_of("tempcnn_grid")
    single = {}
    for name, temperature in (("warm", 3.0), ("cold", 0.5)):
        contract = copy.deepcopy(case.contract)
        contract["properties"]["otb:calibration"] = {"temperature": temperature}
        otbtorch.export(case.module, contract, str(tmp_path / f"{name}.pt"))
        labels(made, tmp_path, name, model=tmp_path / f"{name}.pt", probamap=tmp_path / f"{name}-p.tif")
        single[name] = read(tmp_path / f"{name}-p.tif")
    (tmp_path / "both.txt").write_text("warm.pt\ncold.pt\n")
    labels(made, tmp_path, "both", model=tmp_path / "both.txt", probamap=tmp_path / "both-p.tif")
    mean = (single["warm"].astype(float) + single["cold"]) / 2
    assert abs(read(tmp_path / "both-p.tif") - mean).max() <= 1.0


def test_a_raster_with_no_data_in_some_bands_only_is_not_resampled(scene, tmp_path):
    _, made = scene
    coarse = np.full((len(made["days"]) * 4, 30, 40), 900, np.int16)
    path = write_raster(tmp_path / "coarse.tif", coarse, gdal.GDT_Int16, grid(20))
    bands = range(1, len(coarse) + 1)
    parts = [
        gdal.BuildVRT(
            str(tmp_path / f"{b}.vrt"), str(path), bandList=[b],
            **({"srcNodata": -1, "VRTNodata": -1} if b == 2 else {}),
        )
        for b in bands
    ]  # fmt: skip
    gdal.BuildVRT(str(tmp_path / "some.vrt"), parts, separate=True)
    done = run(
        model=made["model"], il=made["stack"], dates=made["dates"], bands=["x1", "x2", "x3", "x4"],
        il2=tmp_path / "some.vrt", dates2=made["dates"], bands2=made["names"],
        out=tmp_path / "out.tif",
    )  # fmt: skip
    assert_refused(done, "il2 (some.vrt)", "1 of its", "resampled", "gdal_edit.py")


def test_eight_bit_features_want_a_format_that_knows_signed_bytes(case_of, tmp_path):
    case = case_of("ltae_max")
    parameters = dict(case.parameters, model=case.path, featurestype="int8")
    assert_refused(run(**parameters, features=tmp_path / "f.hdr"), "features", "signed bytes")
    assert not list(tmp_path.iterdir())


def test_an_image_that_the_model_does_not_take_is_refused(scene, tmp_path):
    _, made = scene
    one = write(tmp_path / "dem.tif", np.zeros((HEIGHT, WIDTH), np.float32))
    words = dict(model=made["model"], dates=made["dates"], out=tmp_path / "o.tif", static=one)
    done = run(**words, **{"in": made["stack"]})
    assert_refused(done, "static", "the model takes no image that does not change")


def test_the_type_of_masks_that_are_not_there_is_refused(scene, tmp_path):
    _, made = scene
    words = dict(model=made["model"], dates=made["dates"], out=tmp_path / "o.tif")
    done = run(**words, masktype2="scl", **{"in": made["stack"]})
    assert_refused(done, "masktype2", "no series", "il2")


def test_thirteen_bands_that_may_be_read_in_two_ways_have_to_be_named(simulation, tmp_path):
    """A network of all bands of iota2's stack: which of the two layouts is not guessed."""
    import otbtorch
    import torch
    from otbtorch import contract as c

    ten = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
    three = ["NDVI", "NDWI", "Brightness"]
    steps = 4

    class Weighted(torch.nn.Module):
        def forward(self, x):
            score = (x * torch.arange(1.0, 1.0 + x[0].numel()).reshape(x[0].shape)).sum((1, 2))
            return torch.stack((score, -score), 1)

    contract = c.time_series(
        "thirteen", [c.series("x", ten + three, None, steps=steps, gapfill="none")],
        classes=[{"value": 1, "name": "a"}, {"value": 2, "name": "b"}], **sits.PROVENANCE,
    )  # fmt: skip
    otbtorch.export(Weighted(), contract, str(tmp_path / "thirteen.pt"))
    rng = np.random.default_rng(2)
    values = rng.normal(0, 1, (steps, 13, 9, 11)).astype(np.float32)
    stack = np.concatenate(
        [values[:, :10].reshape(-1, 9, 11), values[:, 10:].swapaxes(0, 1).reshape(-1, 9, 11)]
    )
    path = write_raster(tmp_path / "iota2.tif", stack)
    words = dict(
        model=tmp_path / "thirteen.pt", out=tmp_path / "out.tif",
        dates=write_dates(tmp_path / "d.txt", simulation.s2.dates[:steps]),
    )  # fmt: skip
    words["in"] = path
    assert_refused(run(**words), "in (iota2.tif)", "iota2's stack", '"|"', "-bands")
    run(**words, bands=ten + ["|"] + three).ok()
    weights = np.arange(1.0, 1.0 + steps * 13).reshape(steps, 13, 1, 1)
    assert (read(words["out"]) == np.where((values * weights).sum((0, 1)) > 0, 1, 2)).all()
