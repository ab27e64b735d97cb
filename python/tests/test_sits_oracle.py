"""The oracle of test/support on cases that a pencil can check."""

import datetime
import os
import sys

import numpy as np
import pytest

sys.path.insert(
    0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "test", "support")
)

from sits_oracle import (  # noqa: E402
    Sensor,
    Static,
    centre_latlon,
    encoded,
    grid_dates,
    mirror,
    prepare,
)

NAN = float("nan")


def day(text):
    return datetime.date.fromisoformat(text)


def days(*numbers, start="2020-01-01"):
    return [day(start) + datetime.timedelta(days=n) for n in numbers]


def sits(bands=("a",), gapfill="none", policy="any", name="x", window=1, **fields):
    temporal = {"policy": policy, "gapfill": gapfill}
    for key in ("length", "pad_side", "pad_value", "grid"):
        if key in fields:
            temporal[key] = fields.pop(key)
    space = ["height", "width"] if window > 1 else []
    entry = {
        "name": name,
        "bands": list(bands),
        "input": {"dim_order": ["batch", "time", "bands"] + space, "data_type": "float32"},
        "value_scaling": None,
        "otb:role": "sits",
        "otb:temporal": temporal,
    }
    entry.update({"otb:" + k if k != "value_scaling" else k: v for k, v in fields.items()})
    return entry


def beside(role, dim_order, data_type="float32", name=None, **fields):
    return {
        "name": name or role,
        "bands": fields.pop("bands", []),
        "input": {"dim_order": ["batch"] + dim_order, "data_type": data_type},
        "otb:role": role,
        **{"otb:" + k: v for k, v in fields.items()},
    }


def valid(*axes, polarity="valid", data_type="float32", **fields):
    return beside("valid", ["time", *axes], data_type, polarity=polarity, **fields)


def contract(*inputs, unit="pixel", window=1, sensors=None, forward=None):
    properties = {"mlm:input": list(inputs), "otb:tiling": {"unit": unit, "window": window}}
    if sensors:
        properties["otb:sensors"] = sensors
    if forward:
        properties["otb:method"] = {"forward": forward}
    return {"properties": properties}


def pixel(series, mask=None, dates=None, **fields):
    """A sensor of one pixel: ``series`` is T values, or T lists of bands."""
    values = np.array(series, float).reshape(len(series), -1, 1, 1)
    mask = None if mask is None else np.array(mask, bool).reshape(-1, 1, 1)
    return Sensor(values, dates or days(*range(len(series))), mask, **fields)


def fed(*inputs, sensors, **more):
    """Arguments for an image of one pixel, without the batch."""
    options = {k: more.pop(k) for k in ("sensors_declared", "forward") if k in more}
    parsed = contract(
        *inputs, sensors=options.get("sensors_declared"), forward=options.get("forward")
    )
    return [a[0].tolist() for a in prepare(parsed, sensors, **more).arguments]


def test_dates_are_sorted_first():
    sensor = pixel([3, 1, 2], [1, 0, 1], dates=days(20, 0, 10))
    doy = beside("dates", ["time"], "int64", encoding={"kind": "doy"})
    assert fed(sits(nodata_fill=-1), doy, valid(), sensors=[sensor]) == [
        [[-1], [2], [3]],
        [1, 11, 21],
        [0, 1, 1],
    ]


@pytest.mark.parametrize(
    "values, expected",
    [
        ([10, NAN, NAN, 37], [10, 19, 31, 37]),  # three a day
        ([NAN, NAN, 7, 9], [7, 7, 7, 9]),  # before the first: the nearest
        ([5, 6, NAN, NAN], [5, 6, 6, 6]),  # after the last
        ([NAN, 4, NAN, NAN], [4, 4, 4, 4]),
        ([NAN, NAN, NAN, NAN], [-5, -5, -5, -5]),  # nothing known: the fill value
    ],
)
def test_linear_gap_filling(values, expected):
    sensor = pixel(values, dates=days(0, 3, 7, 9))
    (series,) = fed(sits(gapfill="linear", nodata_fill=-5), sensors=[sensor])
    assert np.ravel(series) == pytest.approx(expected, rel=1e-6)


def test_linear_gap_filling_is_that_of_numpy():
    random = np.random.default_rng(0)
    for _ in range(50):
        when = np.sort(random.choice(100, 12, replace=False))
        values, mask = random.normal(size=12), random.random(12) < 0.5
        mask[random.integers(12)] = True
        (series,) = fed(sits(gapfill="linear"), sensors=[pixel(values, mask, days(*when.tolist()))])
        expected = np.interp(when, when[mask], values[mask])
        assert np.ravel(series) == pytest.approx(expected, abs=1e-6)


def test_linear_gap_filling_does_not_change_what_is_valid():
    sensor = pixel([10, 0, 30], [1, 0, 1])
    assert fed(sits(gapfill="linear"), valid(), sensors=[sensor]) == [[[10], [20], [30]], [1, 0, 1]]


def test_gap_filling_comes_before_scaling():
    """Interpolating clipped values would give 12.5."""
    sensor = pixel([10, 0, 30], [1, 0, 1])
    clip = [{"type": "clip", "minimum": 0, "maximum": 15}]
    entry = sits(gapfill="linear", value_scaling=clip)
    assert fed(entry, sensors=[sensor]) == [[[10], [15], [15]]]


def test_grid_interpolates_onto_its_dates():
    sensor = pixel([0, 100, NAN], dates=days(0, 10, 20))  # 1, 11 and 21 January
    grid = {"start": "2019-12-31", "end": "2020-01-14", "step": 7}
    entry = sits(gapfill="grid", policy="fixed", length=3, grid=grid)
    doy = beside("dates", ["time"], "int64", encoding={"kind": "doy"})
    series, dates, flags = fed(entry, doy, valid(), sensors=[sensor])
    assert np.ravel(series) == pytest.approx([0, 60, 100])
    assert dates == [365, 7, 14] and flags == [1, 1, 1]


def test_grid_is_masked_where_nothing_is_valid():
    sensor = pixel([NAN, NAN])
    grid = {"start": "2020-01-01", "end": "2020-01-03", "step": 1}
    entry = sits(gapfill="grid", grid=grid, nodata_fill=9)
    assert fed(entry, valid(), sensors=[sensor]) == [[[9], [9], [9]], [0, 0, 0]]


@pytest.mark.parametrize(
    "start, end, first, last, year",
    [
        ("03-01", "10-31", "2019-02-01", "2019-11-30", 2019),
        ("03-01", "10-31", "2018-09-01", "2019-11-30", 2019),  # 61 days of 2018, 245 of 2019
        ("01-01", "12-31", "2018-01-01", "2019-12-31", 2018),  # as much of both: the earliest
        ("10-01", "04-30", "2018-09-15", "2019-05-15", 2018),  # the end in the following year
        ("10-01", "04-30", "2019-01-01", "2019-02-01", 2018),
        ("06-01", "06-30", "2018-06-30", "2019-06-29", 2019),  # 1 day of 2018, 29 of 2019
    ],
)
def test_grid_of_months_and_days_takes_the_year_of_the_series(start, end, first, last, year):
    steps = grid_dates({"start": start, "end": end, "step": 1}, [day(first), day(last)])
    assert steps[0] == day(f"{year}-{start}")
    assert steps[-1] == day(f"{year + (end < start)}-{end}")


@pytest.mark.parametrize(
    "start, end",
    [("2020-05-01", "2020-06-30"), ("2019-01-01", "2019-12-31"), ("05-01", "06-30")],
)
def test_a_grid_that_does_not_overlap_with_the_series_is_an_error(start, end):
    with pytest.raises(ValueError, match="overlap"):
        grid_dates({"start": start, "end": end, "step": 5}, [day("2020-01-01"), day("2020-04-30")])


def test_both_ends_of_a_grid_are_in_it():
    grid = {"start": "2020-02-27", "end": "2020-03-02", "step": 2}
    expected = [day("2020-02-27"), day("2020-02-29"), day("2020-03-02")]
    assert grid_dates(grid, [day("2020-03-01")]) == expected


@pytest.mark.parametrize("side", ["end", "start"])
def test_padding(side):
    entry = sits(policy="max", length=5, pad_side=side, pad_value=7)
    doy = beside("dates", ["time"], encoding={"kind": "index", "pad_value": -3})
    month = beside("month", [], "int64")
    sensor = pixel([1, 2, 3], dates=days(0, 31, 60))
    series, dates, flags, first = fed(
        entry, doy, valid(polarity="masked"), month, sensors=[sensor]
    )
    expected = [1, 2, 3], [0, 1, 2], [0, 0, 0]
    pads = [7, 7], [-3, -3], [1, 1]
    for got, real, pad in zip((np.ravel(series).tolist(), dates, flags), expected, pads):
        assert got == (real + pad if side == "end" else pad + real)
    assert first == 0


def test_padding_comes_after_scaling():
    scaling = [{"type": "offset", "value": 100}]
    entry = sits(policy="max", length=2, value_scaling=scaling)
    assert fed(entry, sensors=[pixel([101])]) == [[[1], [0]]]


def test_too_many_dates_or_another_number_than_fixed():
    for policy, length in (("max", 2), ("fixed", 4), ("fixed", 2)):
        with pytest.raises(ValueError, match="3 dates"):
            fed(sits(policy=policy, length=length), sensors=[pixel([1, 2, 3])])


@pytest.mark.parametrize(
    "encoding, expected",
    [
        ({"kind": "doy"}, [366, 1, 60]),
        ({"kind": "days_since", "reference": "2021-01-01"}, [-1, 0, 59]),
        ({"kind": "days_since_first"}, [0, 1, 60]),
        ({"kind": "month_index"}, [11, 0, 2]),
        ({"kind": "index"}, [0, 1, 2]),
    ],
)
def test_encodings(encoding, expected):
    steps = [day("2020-12-31"), day("2021-01-01"), day("2021-03-01")]
    assert encoded(steps, encoding) == expected


@pytest.mark.parametrize(
    "scaling, expected",
    [
        (None, [2, 8]),
        ([], [2, 8]),
        ([{"type": "min-max", "minimum": 1, "maximum": 5}], [0.25, 1.75]),
        ([{"type": "z-score", "mean": 4, "stddev": 2}], [-1, 2]),
        ([{"type": "clip", "minimum": 3, "maximum": 7}], [3, 7]),
        ([{"type": "clip-min", "minimum": 3}, {"type": "clip-max", "maximum": 7}], [3, 7]),
        ([{"type": "offset", "value": 5}, {"type": "scale", "value": 4}], [-3, 2]),
    ],
)
def test_scaling(scaling, expected):
    entry = sits(("a", "b"), value_scaling=scaling)
    assert fed(entry, sensors=[pixel([[2, 8]])]) == [[expected]]


@pytest.mark.parametrize(
    "rule, own, declared, expected",
    [
        ("all", None, None, [1, 1, 1, 0]),
        ("all", -1, None, [1, 1, 0, 0]),
        ("any", -1, None, [1, 0, 0, 0]),
        (None, -1, None, [1, 1, 0, 0]),  # the default is `all`
        ("any", 7, -1, [1, 0, 0, 0]),  # what the file declares comes first
    ],
)
def test_no_data_rule(rule, own, declared, expected):
    entry = sits(("a", "b"), nodata=own, nodata_fill=9)
    if rule:
        entry["otb:nodata_rule"] = rule
    sensor = pixel([[1, 2], [1, -1], [-1, -1], [float("inf"), 2]], nodata=declared)
    series, flags = fed(entry, valid(), sensors=[sensor])
    assert flags == expected
    assert [row == [9, 9] for row in series] == [not flag for flag in expected]


def test_only_bands_that_are_used_count():
    sensor = pixel([[NAN, 4, 5]], bands=["c", "b", "a"])
    assert fed(sits(("a", "b")), valid(), sensors=[sensor]) == [[[5, 4]], [1]]


def test_ndvi_is_computed_from_filled_raw_values():
    ndvi = {"name": "NDVI", "format": "normalized-difference", "expression": ["B08", "B04"]}
    bands = ("B04", "B08", ndvi)
    scaling = [{"type": "scale", "value": v} for v in (10, 10, 0.5)]
    sensor = pixel([[1, 3], [NAN, 0], [3, 9], [0, 0]])
    entry = sits(bands, gapfill="linear", value_scaling=scaling)
    (series,) = fed(entry, sensors=[sensor])
    expected = [[0.1, 0.3, 1], [0.2, 0.6, 1], [0.3, 0.9, 1], [0, 0, 0]]
    assert np.array(series) == pytest.approx(np.array(expected), rel=1e-6)
    entry = sits(bands, nodata_fill=-2)
    assert fed(entry, sensors=[sensor])[0][1] == [-2, -2, -2]


def two_sensors(gapfill, *others, **fields):
    first = pixel([1, 2, 3], [1, 0, 1])
    second = pixel([10, 20, 30], [1, 1, 0])
    entry = sits(("a", "b"), gapfill=gapfill, sensor=[1, 2], nodata_fill=-1, **fields)
    return fed(entry, *others, sensors=[first, second])


def test_sensors_of_one_input_are_invalid_together():
    series, flags = two_sensors("none", valid())
    assert series == [[1, 10], [-1, -1], [-1, -1]] and flags == [1, 0, 0]
    assert two_sensors("linear")[0] == [[1, 10], [1, 10], [1, 10]]


def test_sensors_with_the_same_dates_are_invalid_together_on_a_grid_too():
    grid = {"start": "2020-01-01", "end": "2020-01-03", "step": 1}
    series, flags = two_sensors("grid", valid(), grid=grid)
    assert series == [[1, 10], [1, 10], [1, 10]] and flags == [1, 1, 1]
    series, flags = two_sensors("grid", valid("bands"), grid=grid)
    assert series == [[1, 10], [2, 20], [3, 20]] and flags == [[1, 1]] * 3


@pytest.mark.parametrize("gapfill", ["none", "linear", "grid"])
def test_no_common_valid_date_is_no_data_on_the_map(gapfill):
    """Each sensor has one, but not the same."""
    first, second = pixel([1, 2], [1, 0]), pixel([10, 20], [0, 1])
    grid = {"grid": {"start": "2020-01-01", "end": "2020-01-02", "step": 1}}
    entry = sits(("a", "b"), gapfill, sensor=[1, 2], **(grid if gapfill == "grid" else {}))
    result = prepare(contract(entry), [first, second])
    assert result.arguments[0].tolist() == [[[0, 0], [0, 0]]]
    assert [v.tolist() for v in result.valid_dates] == [[[0]], [[0]]]
    assert result.map_valid.tolist() == [[False]]
    result = prepare(contract(entry, valid("bands")), [first, second])
    assert [v.tolist() for v in result.valid_dates] == [[[1]], [[1]]]
    assert result.map_valid.tolist() == [[True]]


def test_sensors_with_other_dates_count_each_for_itself():
    grid = {"start": "2020-01-01", "end": "2020-01-02", "step": 1}
    entry = sits(("a", "b"), "grid", sensor=[1, 2], grid=grid)
    first = pixel([1, 2], [1, 0])
    second = pixel([10, 20, 30], [0, 1, 1])
    result = prepare(contract(entry, valid()), [first, second])
    assert result.arguments[0].tolist() == [[[1, 20], [1, 20]]]
    assert result.arguments[1].tolist() == [[1, 1]]
    assert [v.tolist() for v in result.valid_dates] == [[[1]], [[2]]]
    second.valid[:] = False
    result = prepare(contract(entry, valid()), [first, second])
    assert result.arguments[1].tolist() == [[0, 0]] and result.map_valid.tolist() == [[False]]


def test_a_band_is_found_in_another_sensor_that_has_it():
    entry = sits(("a", "b"), sensor=[1, 2])
    both = pixel([[1, 2], [3, 4]], bands=["b", "a"])
    assert fed(entry, sensors=[both]) == [[[2, 1], [4, 3]]]
    with pytest.raises(ValueError, match="band b"):
        fed(entry, sensors=[pixel([[1], [3]], bands=["a"]), pixel([[1], [3]], bands=["c"])])
    with pytest.raises(ValueError, match="missing"):
        fed(entry, sensors=[pixel([[1], [3]], bands=["a"])])


def test_a_mask_of_bands_tells_sensors_apart():
    series, flags = two_sensors("none", valid("bands", polarity="masked", data_type="bool"))
    assert series == [[1, 10], [-1, 20], [3, -1]]
    assert flags == [[False, False], [True, False], [False, True]]
    series, flags = two_sensors("linear", valid("bands"))
    assert series == [[1, 10], [2, 20], [3, 20]]
    assert flags == [[1, 1], [0, 1], [1, 0]]


def test_sensors_with_other_dates_meet_on_a_grid():
    first = pixel([0, 8], dates=days(0, 8))
    second = pixel([1, NAN, 5], dates=days(2, 4, 6))
    grid = {"start": "2020-01-01", "end": "2020-01-09", "step": 4}
    entry = sits(("a", "b"), gapfill="grid", sensor=[1, 2], grid=grid)
    assert fed(entry, sensors=[first, second]) == [[[0, 1], [4, 3], [8, 5]]]
    with pytest.raises(ValueError, match="different dates"):
        fed(sits(("a", "b"), sensor=[1, 2]), sensors=[first, second])


def test_static_bands_repeat():
    """Their no-data is that of a band, not of a date."""
    series, flags, bands = fed(
        sits(("a", "dem", "slope"), sensor=[1, 0, 0], nodata=-1, nodata_fill=7),
        valid(),
        valid("bands", name="bandwise"),
        sensors=[pixel([1, -1])],
        static=Static(np.array([[[5]], [[6]]]), bands=["dem", "slope"]),
    )
    assert series == [[1, 5, 6], [7, 5, 6]]
    assert flags == [1, 0] and bands == [[1, 1, 1], [0, 1, 1]]
    series, flags, bands = fed(
        sits(("a", "dem"), sensor=[1, 0], nodata=-1, nodata_fill=7),
        valid(),
        valid("bands", name="bandwise"),
        sensors=[pixel([1, 2])],
        static=Static(np.array([[[-1]]])),
    )
    assert series == [[1, 7], [2, 7]]
    assert flags == [1, 1] and bands == [[1, 0], [1, 0]]


def test_absent_optional_sensor_is_masked():
    first = pixel([1, 2])
    entry = sits(("a", "b"), sensor=[1, 2], nodata_fill=-1)
    declared = [{"name": "one"}, {"name": "two", "optional": True}]
    parsed = contract(entry, valid("bands"), sensors=declared)
    result = prepare(parsed, [first, None])
    assert result.arguments[0].tolist() == [[[1, -1], [2, -1]]]
    assert result.arguments[1].tolist() == [[[1, 0], [1, 0]]]
    assert [v.tolist() for v in result.valid_dates] == [[[2]], [[0]]]
    assert result.map_valid.tolist() == [[True]]
    with pytest.raises(ValueError, match="missing"):
        prepare(parsed, [None, first])


def test_a_series_without_any_sensor_is_an_error():
    """Though its sensor is optional."""
    inputs = [
        sits(("a",), name="one"),
        sits(("b",), name="two", sensor=2),
        valid("bands", of="two"),
    ]
    declared = [{"name": "one"}, {"name": "two", "optional": True}]
    with pytest.raises(ValueError, match="no sensor"):
        prepare(contract(*inputs, sensors=declared), [pixel([1, 2]), None])


def test_pixels_without_any_valid_date_are_no_data():
    values = np.array([[1, NAN, 3], [4, NAN, NAN]]).reshape(2, 1, 1, 3)
    result = prepare(contract(sits()), [Sensor(values, days(0, 1))])
    assert result.valid_dates[0].tolist() == [[2, 0, 1]]
    assert result.map_valid.tolist() == [[True, False, True]]


def test_axes_types_and_order_of_arguments():
    entry = sits(("a", "b"))
    entry["input"]["dim_order"] = ["batch", "bands", "time"]
    parsed = contract(entry, valid(data_type="uint8"), forward=["valid", "x"])
    mask, series = prepare(parsed, [pixel([[1, 2], [3, 4]], [1, 0])]).arguments
    assert (mask.dtype, series.dtype) == (np.uint8, np.float32)
    assert mask.tolist() == [[1, 0]] and series.tolist() == [[[1, 0], [2, 0]]]


def test_pixels_come_in_row_order():
    values = np.arange(6.0).reshape(1, 1, 2, 3)
    (series,) = prepare(contract(sits()), [Sensor(values, days(0))]).arguments
    assert series.shape == (6, 1, 1) and series.ravel().tolist() == list(range(6))


def test_mirror_does_not_repeat_the_edge():
    assert [mirror(i, 3) for i in range(-4, 7)] == [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    assert [mirror(i, 1) for i in (-2, 0, 5)] == [0, 0, 0]
    line = np.arange(4)
    padded = np.pad(line, 3, mode="reflect")
    assert [line[mirror(i, 4)] for i in range(-3, 7)] == padded.tolist()


def test_windows_are_mirrored_at_the_borders():
    values = np.arange(12.0).reshape(1, 1, 3, 4)
    mask = np.ones((1, 3, 4), bool)
    mask[0, 0, 1] = False
    parsed = contract(
        sits(window=3, nodata_fill=-1), valid("height", "width"), valid(name="centre"), window=3
    )
    series, flags, centre = prepare(parsed, [Sensor(values, days(0), mask)]).arguments
    assert series.shape == (12, 1, 1, 3, 3) and flags.shape == (12, 1, 3, 3)
    assert series[0, 0, 0].tolist() == [[5, 4, 5], [-1, 0, -1], [5, 4, 5]]
    assert flags[0, 0].tolist() == [[1, 1, 1], [0, 1, 0], [1, 1, 1]]
    assert series[11, 0, 0].tolist() == [[6, 7, 6], [10, 11, 10], [6, 7, 6]]
    assert centre[:, 0].tolist() == [1, 0] + [1] * 10


def test_patches_and_the_share_of_valid_pixels():
    values = np.zeros((3, 1, 2, 2))
    mask = np.ones((3, 2, 2), bool)
    mask[0] = [[0, 0], [0, 1]]  # a quarter is valid
    mask[1] = False
    sensor = Sensor(values, days(0, 1, 2), mask)
    for share, expected in ((0, [1, 0, 1]), (0.25, [1, 0, 1]), (0.26, [0, 0, 1]), (1, [0, 0, 1])):
        parsed = contract(sits(window=2), valid(min_valid=share), unit="patch")
        _, flags = prepare(parsed, [sensor], patches=[(0, 0, 2)]).arguments
        assert flags.tolist() == [expected]


def test_patches_may_leave_the_image():
    values = np.arange(9.0).reshape(1, 1, 3, 3)
    parsed = contract(sits(window=2), unit="patch")
    parsed["properties"]["mlm:input"][0]["input"]["dim_order"] = [
        "batch", "bands", "time", "height", "width",
    ]  # fmt: skip
    patches = [(-1, 2, 2), (1, 1, 2)]
    (series,) = prepare(parsed, [Sensor(values, days(0))], patches=patches).arguments
    assert series.shape == (2, 1, 1, 2, 2)
    assert series[0, 0, 0].tolist() == [[5, 4], [2, 1]]
    assert series[1, 0, 0].tolist() == [[4, 5], [7, 8]]


def test_static_input_and_coordinates():
    dem = Static(np.array([[[1, -1], [3, 4]]]))
    entry = beside("static", ["bands"], bands=["dem"], nodata=-1, nodata_fill=8)
    entry["value_scaling"] = [{"type": "scale", "value": 2}]
    latlon = np.array([[45.0, 45.0], [44.0, 44.0]]), np.array([[1.0, 2.0], [1.0, 2.0]])
    parsed = contract(sits(), entry, beside("latlon", ["channel"]))
    sensor = Sensor(np.zeros((1, 1, 2, 2)), days(0))
    _, static, where = prepare(parsed, [sensor], static=dem, latlon=latlon).arguments
    assert static.tolist() == [[0.5], [8], [1.5], [2]]
    assert where.tolist() == [[45, 1], [45, 2], [44, 1], [44, 2]]
    assert centre_latlon(latlon, 0, 0, 2, 2) == [44.5, 1.5]
    assert centre_latlon(latlon, -1, 1, 2, 2) == [45.5, 2.5]


def test_month_of_the_first_step():
    month = beside("month", [], "int64")
    assert fed(sits(), month, sensors=[pixel([1, 2], dates=days(40, 20))])[1] == 0
    assert fed(sits(), month, sensors=[pixel([1], dates=[day("2020-12-05")])])[1] == 11


def test_two_series_with_what_belongs_to_each():
    one, two = pixel([1], dates=days(0)), pixel([5, 6], [1, 0], dates=days(3, 5))
    inputs = [
        sits(("a",), name="one"),
        sits(("b",), name="two", sensor=2),
        beside("dates", ["time"], encoding={"kind": "doy"}, name="d2", of="two"),
        valid(name="v2", of="two"),
        beside("dates", ["time"], encoding={"kind": "doy"}, name="d1", of="one"),
    ]
    assert fed(*inputs, sensors=[one, two]) == [[[1]], [[5], [0]], [4, 6], [1, 0], [1]]
