"""Networks of image time series: their interfaces, and what must not change their output."""

import io

import pytest
import torch

from otbtorch.models import (
    LTAE,
    PRESTO_BANDS,
    PRESTO_SCALING,
    TWINNS,
    UBARN,
    UTAE,
    Presto,
    TempCNN,
    TWINNSSingle,
)
from otbtorch.models.temporal import sinusoid
from otbtorch.models.unet import receptive_radius

B = 4  # samples
T = 6  # dates
REAL = 4  # dates of the last sample, padded at the end


def counted(model):
    return sum(p.numel() for p in model.parameters())


def days():
    return (torch.arange(T) * 25 + 10).repeat(B, 1) + torch.arange(B).unsqueeze(1)


def valid():
    flags = torch.ones(B, T)
    flags[1, 2] = flags[2, 0] = 0
    flags[B - 1, REAL:] = 0
    return flags


def series(*shape):
    return torch.randn(B, T, *shape)


def padded(x):
    x = x.clone()
    x[B - 1, REAL:] = 0
    return x


def presto_mask():
    mask = (torch.rand(B, T, 17) < 0.2).float()
    mask[0] = 0
    mask[B - 1, REAL:] = 1
    return mask


# Name: model, its arguments, shapes of its outputs, largest number of parameters.
CASES = {
    "tempcnn": lambda: (
        TempCNN(4, T, 5),
        (series(4),),
        [(B, 5)],
        200_000,
    ),
    "ltae": lambda: (
        LTAE(10, 5),
        (series(10), days(), valid()),
        [(B, 5), (B, 64)],
        30_000,
    ),
    "twinns": lambda: (
        TWINNS(T, T + 2, 2, 10, 5),
        (series(2, 5, 5), torch.randn(B, T + 2, 10, 5, 5)),
        [(B, 5), (B, 5), (B, 5), (B, 256)],
        200_000,
    ),
    "twinns single": lambda: (
        TWINNSSingle(T, 10, 5),
        (series(10, 5, 5),),
        [(B, 5), (B, 5), (B, 5), (B, 128)],
        100_000,
    ),
    "presto": lambda: (
        Presto(5),
        (series(17), presto_mask(), torch.rand(B, 2) * 90, torch.tensor([0, 3, 11, 7])),
        [(B, 5), (B, 128)],
        300_000,
    ),
    "utae": lambda: (
        UTAE(10, 20),
        (padded(series(10, 16, 24)), days() + 400),
        [(B, 20, 16, 24)],
        300_000,
    ),
    "ubarn": lambda: (
        UBARN(10, 5),
        (series(10, 8, 12), days(), valid()),
        [(B, 5, 8, 12), (B, 64, 8, 12)],
        300_000,
    ),
}

WITH_VALID = ["ltae", "ubarn"]


@pytest.fixture(params=CASES)
def case(request):
    return ready(request.param)


def ready(name):
    """Model (settled: batch norms have statistics), arguments, shapes, largest size."""
    torch.manual_seed(0)
    model, arguments, shapes, most = CASES[name]()
    with torch.no_grad():
        model.train()
        model(*arguments)
    return model.eval(), arguments, shapes, most


def run(model, *arguments):
    with torch.no_grad():
        outputs = model(*arguments)
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def assert_same(found, expected, tolerance=1e-6):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert torch.isfinite(b).all()
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance), (a - b).abs().max()


def test_shapes_and_parameters(case):
    model, arguments, shapes, most = case
    assert [tuple(o.shape) for o in run(model, *arguments)] == shapes
    assert counted(model) <= most


def test_scripts_and_freezes(case):
    model, arguments, _, _ = case
    expected = run(model, *arguments)
    stored = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.script(model)), stored)
    stored.seek(0)
    loaded = torch.jit.load(stored)
    for _ in range(3):  # the profiling executor changes the graph on the way
        assert_same(run(loaded, *arguments), expected, 2e-6)
    assert "scaled_dot_product_attention" not in str(loaded.inlined_graph)
    assert "_native_multi_head_attention" not in str(loaded.inlined_graph)


def test_a_script_takes_another_number_of_dates():
    for name in ("ltae", "presto", "utae", "ubarn"):
        model, arguments, _, _ = ready(name)
        fewer = [a[:2, :3] if a.dim() > 1 and a.shape[1] == T else a[:2] for a in arguments]
        script = torch.jit.script(model)
        run(script, *arguments)
        assert_same(run(script, *fewer), run(model, *fewer))


def test_a_sample_alone_and_in_a_batch(case):
    model, arguments, _, _ = case
    together = run(model, *arguments)
    for i in range(B):
        alone = run(model, *(a[i : i + 1] for a in arguments))
        assert_same(alone, [o[i : i + 1] for o in together])


@pytest.mark.parametrize("name", WITH_VALID)
def test_values_and_days_of_invalid_dates_change_nothing(name):
    model, (x, dates, flags), _, _ = ready(name)
    expected = run(model, x, dates, flags)
    for rubbish in (1e6, float("nan"), float("inf")):
        other, when = x.clone(), dates.clone()
        other[flags == 0] = rubbish
        when[flags == 0] = -999
        assert_same(run(model, other, when, flags), expected, 0)
    changed = x.clone()
    changed[0, 0] += 1
    assert not torch.allclose(run(model, changed, dates, flags)[0][0], expected[0][0], atol=1e-4)


@pytest.mark.parametrize("name", WITH_VALID)
@pytest.mark.parametrize("side", ["end", "start"])
def test_padding_with_invalid_dates_changes_nothing(name, side):
    model, (x, dates, flags), _, _ = ready(name)
    longer = []
    for a in (x, dates, flags):
        more = torch.zeros_like(a[:, :3])
        longer.append(torch.cat([a, more] if side == "end" else [more, a], dim=1))
    assert_same(run(model, *longer), run(model, x, dates, flags))


@pytest.mark.parametrize("name", WITH_VALID)
def test_types_of_dates_and_masks_do_not_matter(name):
    model, (x, dates, flags), _, _ = ready(name)
    expected = run(model, x, dates, flags)
    assert_same(run(model, x, dates.float(), flags.bool()), expected, 0)
    assert_same(run(model, x, dates, flags.to(torch.uint8)), expected, 0)


@pytest.mark.parametrize("name", WITH_VALID)
def test_without_any_valid_date_outputs_and_gradients_are_finite(name):
    model, (x, dates, flags), _, _ = ready(name)
    flags[1] = 0
    outputs = model(x, dates, flags)
    assert all(torch.isfinite(o).all() for o in outputs)
    sum(o.sum() for o in outputs).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    # Nothing is known of it: the same whatever it holds.
    assert_same(run(model, -x, dates, flags)[0][1:2], outputs[0][1:2].detach(), 0)


def test_order_of_dates_does_not_matter_to_ltae():
    model, (x, dates, flags), _, _ = ready("ltae")
    order = torch.randperm(T)
    shuffled = run(model, x[:, order], dates[:, order], flags[:, order])
    assert_same(shuffled, run(model, x, dates, flags))


def test_utae_takes_frames_of_the_pad_value_for_padding():
    model, (x, dates), _, _ = ready("utae")
    expected = run(model, x, dates)
    longer = torch.cat([x, torch.zeros_like(x[:, :2])], dim=1)
    when = torch.cat([dates, torch.full_like(dates[:, :2], 5000)], dim=1)
    assert_same(run(model, longer, when), expected)
    shorter = run(model, x[B - 1 :, :REAL], dates[B - 1 :, :REAL])
    assert_same(shorter, [expected[0][B - 1 :]])
    # One pixel that differs makes it a date.
    touched = longer.clone()
    touched[0, T, 0, 0, 0] = 1
    assert not torch.allclose(run(model, touched, when)[0][0], expected[0][0], atol=1e-4)
    # Nothing but padding.
    assert torch.isfinite(run(model, torch.zeros_like(x), dates)[0]).all()


def test_utae_with_another_pad_value():
    torch.manual_seed(0)
    model = UTAE(3, 4, pad_value=-9.0).eval()
    x = torch.randn(1, 3, 3, 16, 16)
    when = torch.tensor([[0, 30, 60]])
    longer = torch.cat([x, torch.full_like(x[:, :1], -9.0)], dim=1)
    padded_when = torch.cat([when, when[:, :1] * 0], dim=1)
    assert_same(run(model, longer, padded_when), run(model, x, when))


def test_ubarn_sees_no_further_than_its_radius():
    torch.manual_seed(0)
    depth = 1
    radius = receptive_radius(depth)
    model = UBARN(2, 3, d_model=16, hidden=16, layers=1, width=8, depth=depth).eval()
    side = 4 * radius + 2
    middle = side // 2
    x = torch.randn(1, 2, 2, side, side)
    far = x.clone()
    rows = torch.arange(side)
    distance = torch.maximum(
        (rows - middle).abs().unsqueeze(0), (rows - middle).abs().unsqueeze(1)
    )
    far[..., distance > radius] += 5
    when, flags = torch.tensor([[5, 100]]), torch.ones(1, 2)
    a, b = run(model, x, when, flags)[0], run(model, far, when, flags)[0]
    assert torch.allclose(a[..., middle, middle], b[..., middle, middle], atol=1e-6)
    assert not torch.allclose(a[..., 0, 0], b[..., 0, 0], atol=1e-3)


def test_presto_does_not_see_what_is_masked():
    model, (x, mask, place, month), _, _ = ready("presto")
    expected = run(model, x, mask, place, month)
    rubbish = torch.where(mask != 0, torch.full_like(x, float("nan")), x)
    assert_same(run(model, rubbish, mask, place, month), expected, 0)
    assert_same(run(model, x, mask.bool(), place, month), expected, 0)
    # A group is absent as soon as one of its bands is; elevation and slope count at the first step.
    grouped = mask.clone()
    grouped[..., 0:2] = mask[..., 0:2].amax(-1, keepdim=True)
    grouped[:, 1:, 14:16] = 1
    assert_same(run(model, x, grouped, place, month), expected, 0)


def test_presto_padding_and_nothing_at_all():
    model, (x, mask, place, month), _, _ = ready("presto")
    longer = torch.cat([x, torch.zeros_like(x)], dim=1), torch.cat([mask, mask * 0 + 1], dim=1)
    assert_same(run(model, *longer, place, month), run(model, x, mask, place, month))
    nothing = run(model, x, torch.ones_like(mask), place, month)
    assert all(torch.isfinite(o).all() for o in nothing)
    assert_same(run(model, -x, torch.ones_like(mask), place, month), nothing, 0)
    with pytest.raises(RuntimeError, match="at most 24"):
        model(torch.zeros(1, 25, 17), torch.zeros(1, 25, 17), place[:1], month[:1])


def test_presto_months_go_round():
    model, (x, mask, place, month), _, _ = ready("presto")
    assert_same(
        run(model, x, mask, place, month), run(model, x, mask, place, (month + 12).float()), 0
    )
    other = run(model, x, mask, place, month + 1)[1]
    assert not torch.allclose(other, run(model, x, mask, place, month)[1], atol=1e-3)


def test_presto_parameters_are_those_of_the_published_encoder():
    """Names and shapes as in the published weights (but for the Dynamic World labels)."""
    expected = {
        "latlon_embed.weight": (128, 3),
        "latlon_embed.bias": (128,),
        "pos_embed": (1, 24, 64),
        "month_embed.weight": (12, 32),
        "channel_embed.weight": (10, 32),
        "norm.weight": (128,),
        "norm.bias": (128,),
    }
    sizes = dict(
        S1=2, S2_RGB=3, S2_Red_Edge=3, S2_NIR_10m=1, S2_NIR_20m=1, S2_SWIR=2, ERA5=2, SRTM=2, NDVI=1
    )
    for name, size in sizes.items():
        expected[f"eo_patch_embed.{name}.weight"] = (128, size)
        expected[f"eo_patch_embed.{name}.bias"] = (128,)
    layers = {"norm1": (128,), "attn.qkv": (384, 128), "attn.proj": (128, 128)}
    layers.update({"norm2": (128,), "mlp.fc1": (256, 128), "mlp.fc2": (128, 256)})
    for block in (0, 1):
        for name, shape in layers.items():
            expected[f"blocks.{block}.{name}.weight"] = shape
            expected[f"blocks.{block}.{name}.bias"] = shape[:1]
    found = {k: tuple(v.shape) for k, v in Presto(5).encoder.state_dict().items()}
    assert found == expected


def test_presto_scaling():
    assert len(PRESTO_BANDS) == len(PRESTO_SCALING) == len(set(PRESTO_BANDS)) == 17
    raw = dict(VV=-25, B2=10000, temperature_2m=307.15, total_precipitation=0.03)
    raw.update(elevation=2000, slope=50, NDVI=0.5)
    expected = dict(raw, VV=0, B2=1, temperature_2m=1, total_precipitation=1)
    expected.update(elevation=1, slope=1)
    for band, x in raw.items():
        entry = PRESTO_SCALING[PRESTO_BANDS.index(band)]
        if entry["type"] == "z-score":
            found = (x - entry["mean"]) / entry["stddev"]
        else:
            found = x / entry["value"]
        assert found == pytest.approx(expected[band]), band


def test_twinns_fits_in_a_megabyte():
    """With as many dates as the published sites have."""
    torch.manual_seed(0)
    model = TWINNS(30, 34, 2, 10, 12).eval()
    stored = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.script(model)), stored)
    assert counted(model) < 200_000 and stored.tell() < 2**20


def test_twinns_refuses_another_number_of_dates_or_window():
    model = torch.jit.script(TWINNSSingle(T, 10, 5).eval())
    for shape in ((1, T + 1, 10, 5, 5), (1, T, 10, 7, 7)):
        with pytest.raises((RuntimeError, torch.jit.Error), match="expected a series"):
            model(torch.zeros(*shape))


def test_published_size_of_tempcnn():
    """Three convolutions of 64, a dense layer of 256, as in the paper, for 9 dates of 3 bands."""
    convolutions = (3 * 5 + 1) * 64 + 2 * (64 * 5 + 1) * 64
    norms = 2 * (3 * 64 + 256)
    assert counted(TempCNN(3, 9, 13)) == convolutions + (9 * 64 + 1) * 256 + norms + 257 * 13


def test_sinusoid():
    table = sinusoid(torch.tensor([0.0, 90.0]), 4)
    expected = torch.tensor([90.0, 90.0 / 1000**0.5])
    assert torch.equal(table[0], torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert torch.allclose(table[1, 0::2], expected.sin(), atol=1e-5)
    assert torch.allclose(table[1, 1::2], expected.cos(), atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TempCNN(4, T, 5, kernel=4),
        lambda: LTAE(4, 5, heads=16, d_model=100),
        lambda: UTAE(4, 5, widths=(32, 40)),
        lambda: UBARN(4, 5, d_model=30),
    ],
)
def test_sizes_that_do_not_fit(make):
    with pytest.raises(ValueError):
        make()


def test_they_learn():
    """A few steps lower the loss: gradients reach the weights through the masks."""
    for name in CASES:
        model, arguments, shapes, _ = ready(name)
        model.train()
        goal = torch.randint(0, shapes[0][1], shapes[0][:1] + shapes[0][2:])
        torch.manual_seed(1)
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
        losses = []
        for _ in range(8):
            outputs = model(*arguments)
            logits = outputs[0] if isinstance(outputs, tuple) else outputs
            loss = torch.nn.functional.cross_entropy(logits, goal)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0], name
