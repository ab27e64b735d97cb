"""Scores against independent implementations in double precision.

Statistics of the pair are written in NumPy from their definitions, estimators of generative
networks in PyTorch from their formulas, with the random numbers of the module (Philox4x32-10 keyed
on pixel, channel and stream). Scores are compared without smoothing, and with it for one of them.
"""

import math

import numpy as np
import pytest
from conftest import make_arrays, write
from likelihood import (
    BANDS,
    BETAS,
    CORRELATION,
    GROUPS,
    MARGINAL,
    MEAN,
    STDDEV,
    TOKEN,
    contract_of,
    likelihood_models,
    maps,
    networks,
    write_pair,
)
from sits import together

__all__ = ["likelihood_models"]  # fixtures

WIDTH, HEIGHT = 83, 71
SEED = 3


@pytest.fixture(scope="module")
def arrays():
    x1, x2, mask = make_arrays(WIDTH, HEIGHT, BANDS, seed=23)
    mask[50:58, 30:44] = 0
    return x1, x2, mask


@pytest.fixture(scope="module")
def files(arrays, tmp_path_factory):
    x1, x2, mask = arrays
    folder = tmp_path_factory.mktemp("oracle")
    paths = write_pair(folder, x1, x2)
    paths["mask"] = write(folder / "mask.tif", mask)
    return paths


def validity(x1, x2, mask):
    """Where both dates hold data: finite, and not 0 in all bands of one."""
    good = mask != 0
    for x in (x1, x2):
        good &= np.isfinite(x).all(axis=0) & ~(x == 0).all(axis=0)
    assert 0.4 < good.mean() < 0.9
    return good


@pytest.fixture(scope="module")
def valid(arrays):
    return validity(*arrays)


def close(found, wanted, valid, rtol, atol=0.0):
    assert ((found != -9999) == valid).all()
    error = np.abs(found[valid] - wanted[valid])
    allowed = rtol * np.abs(wanted[valid]) + atol
    worst = np.argmax(error - allowed)
    assert (error <= allowed).all(), (
        f"{(error > allowed).sum()} of {valid.sum()} pixels: "
        f"{found[valid][worst]} instead of {wanted[valid][worst]}"
    )


# ---------------------------------------------------------------------------------------------
# Statistics of the pair


def standardise(x, valid, clip=0.01):
    """Clipped at quantiles, mean 0 and standard deviation 1 over the scene; 0 where invalid."""
    made = np.zeros(x.shape)
    for b, band in enumerate(x):
        values = band[valid].astype(float)
        low, high = np.quantile(values, [clip, 1 - clip])
        values = np.clip(values, low, high)
        made[b][valid] = (values - values.mean()) / values.std()
    return made


def gaussian(plane, sigma):
    """Separable, cut at three standard deviations, mirrored at the border."""
    radius = round(3 * sigma)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    weights /= weights.sum()
    for axis in (0, 1):
        wide = np.pad(plane, [(radius, radius) if a == axis else (0, 0) for a in (0, 1)], "reflect")
        size = plane.shape[axis]
        plane = sum(w * wide.take(range(k, k + size), axis) for k, w in enumerate(weights))
    return plane


def smooth(score, valid, sigma):
    """Weighted mean of the valid scores around."""
    weight = np.maximum(gaussian(valid.astype(float), sigma), 1e-12)
    return gaussian(np.where(valid, score, 0.0), sigma) / weight


def context(date, valid):
    """Features of a standardised date: 3 x 3 neighbours and three means of each band, and 1."""
    features = []
    for band in date:
        wide = np.pad(band, 1, "reflect")
        h, w = band.shape
        features += [wide[j : j + h, i : i + w] for j in range(3) for i in range(3)]
        features += [smooth(band, valid, sigma) for sigma in (2.0, 4.0, 8.0)]
    return np.stack(features + [np.ones(valid.shape)])


def residuals(dates, valid):
    """Of date 2 given date 1 and of date 1 given date 2, (bands, H, W) each."""
    made = []
    for source, target in ((0, 1), (1, 0)):
        features = context(dates[source], valid)
        a, y = features[:, valid], dates[target][:, valid]
        gram = a @ a.T / a.shape[1] + np.diag([1e-3] * (len(a) - 1) + [0.0])
        weights = np.linalg.solve(gram, a @ y.T / a.shape[1])
        made.append(dates[target] - np.tensordot(weights.T, features, 1))
    return made


def length(residual, valid, norm):
    squares = (residual**2).sum(0)
    if norm != "l2":
        r = residual[:, valid]
        white = np.linalg.solve(np.linalg.cholesky(r @ r.T / r.shape[1]), r)
        squares[valid] = (white**2).sum(0)
    bands = len(residual)
    return (4 + bands) / 2 * np.log1p(squares / 4) if norm == "student" else np.sqrt(squares)


@pytest.fixture(scope="module")
def dates(arrays, valid):
    return [standardise(x, valid) for x in arrays[:2]]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
@pytest.mark.parametrize("norm", ["l2", "mahalanobis", "student"])
def test_regression_of_the_pair(norm, direction, dates, valid, files, tmp_path):
    lengths = [length(r, valid, norm) for r in residuals(dates, valid)]
    wanted = {"forward": lengths[0], "backward": lengths[1], "both": sum(lengths) / 2}[direction]
    options = dict(estimator="regress", norm=norm, direction=direction, smooth=0)
    found, _ = maps(tmp_path, ["out"], **options, **files)
    close(found["out"], wanted, valid, 1e-3, 1e-4)


def test_regression_smoothed_and_the_less_likely_date(dates, valid, files, tmp_path):
    lengths = [length(r, valid, "l2") for r in residuals(dates, valid)]
    both = [smooth(plane, valid, 2.5) for plane in lengths]
    found, _ = maps(tmp_path, ["out", "which"], **files)
    close(found["out"], sum(both) / 2, valid, 1e-3)
    told = valid & (np.abs(both[0] - both[1]) > 1e-3)
    assert told.mean() > 0.4
    assert (found["which"][told] == np.where(both[0] > both[1], 2, 1)[told]).all()


def test_regression_of_dates_of_other_bands(arrays, files, tmp_path):
    """And with more of the pixels clipped."""
    x1, x2, mask = arrays
    good = validity(x1, x2[:1], mask)
    dates = [standardise(x1, good, 0.05), standardise(x2[:1], good, 0.05)]
    lengths = [length(r, good, "l2") for r in residuals(dates, good)]
    options = dict(files, in2=f"{files['in2']}?&bands=1", smooth=0, clip=0.05)
    found, _ = maps(tmp_path, ["out"], **options)
    close(found["out"], sum(lengths) / 2, good, 1e-3, 1e-4)


def test_change_vectors(dates, valid, files, tmp_path):
    wanted = np.sqrt(((dates[1] - dates[0]) ** 2).sum(0))
    found, _ = maps(tmp_path, ["out"], estimator="cva", smooth=0, **files)
    close(found["out"], wanted, valid, 1e-4, 1e-4)


def tail(x, degrees):
    """Probability that a chi-square variable exceeds x."""
    import torch

    half = torch.tensor(degrees / 2, dtype=torch.float64)
    return torch.special.gammaincc(half, torch.from_numpy(np.maximum(x / 2, 0))).numpy()


def alteration(x, y, iterations):
    """Square root of the sum of squared MAD variates, (pixels): x, y (bands, pixels)."""
    weights, before = np.ones(x.shape[1]), np.zeros(min(len(x), len(y)))
    for iteration in range(iterations + 1):
        w = weights / weights.sum()
        a, b = x - (x @ w)[:, None], y - (y @ w)[:, None]
        ridge = 1e-6
        s11 = (a * w) @ a.T + ridge * np.eye(len(x))
        s22 = (b * w) @ b.T + ridge * np.eye(len(y))
        l1, l2 = np.linalg.cholesky(s11), np.linalg.cholesky(s22)
        middle = np.linalg.solve(l1, (a * w) @ b.T) @ np.linalg.inv(l2).T
        u, rho, vt = np.linalg.svd(middle, full_matrices=False)
        variates = np.linalg.solve(l1.T, u).T @ a - np.linalg.solve(l2.T, vt.T).T @ b
        z = (variates**2 / (2 * (1 - rho))[:, None]).sum(0)
        if iteration and np.abs(rho - before).max() < 1e-3:
            break
        weights, before = tail(z, len(rho)), rho
    if iterations:  # reweighted: at most the median of chi-square
        candidates = np.linspace(0, 4, 400001)
        middle = candidates[np.argmin(np.abs(tail(candidates, len(rho)) - 0.5))]
        z = z * min(1.0, middle / np.median(z))
    return np.sqrt(z)


@pytest.mark.parametrize("estimator, iterations", [("mad", 0), ("irmad", 30)])
@pytest.mark.parametrize("bands", [3, 2, 1])
def test_alteration_detection(estimator, iterations, bands, arrays, files, tmp_path):
    x1, x2, mask = arrays
    good = validity(x1, x2[:bands], mask)
    dates = [standardise(x, good) for x in (x1, x2[:bands])]
    wanted = np.zeros(good.shape)
    wanted[good] = alteration(dates[0][:, good], dates[1][:, good], iterations)
    keep = ",".join(str(b + 1) for b in range(bands))
    options = dict(files, in2=f"{files['in2']}?&bands={keep}", estimator=estimator, smooth=0)
    found, _ = maps(tmp_path, ["out", "pvalue"], **options)
    close(found["out"], wanted, good, 2e-3, 1e-3)
    p = -np.log10(np.maximum(tail(found["out"].astype(float) ** 2, bands), 1e-300))
    close(np.where(good, found["pvalue"], -9999), p, good, 1e-4, 1e-4)


# ---------------------------------------------------------------------------------------------
# Random numbers


def words(x, y, channel, stream, seed=SEED, tag=0):
    """Four words each of Philox4x32-10; x, y are arrays."""
    low = np.uint64(0xFFFFFFFF)
    c = [np.asarray(v, np.int64).astype(np.uint64) & low for v in (x, y, channel, stream)]
    c = list(np.broadcast_arrays(*c))
    keys = [seed, tag]
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        high0, high1 = p0 >> np.uint64(32), p1 >> np.uint64(32)
        first, third = high1 ^ c[1] ^ np.uint64(keys[0]), high0 ^ c[3] ^ np.uint64(keys[1])
        c = [first, p1 & low, third, p0 & low]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


def test_words_are_those_of_the_reference():
    """Known answers of Random123 for Philox4x32-10: all zeros, all ones."""
    zero = [int(w) for w in words(0, 0, 0, 0, seed=0)]
    assert zero == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ones = 0xFFFFFFFF
    assert [int(w) for w in words(ones, ones, ones, ones, ones, ones)] == [
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    ]


def stream(purpose, level=0, draw=0):
    return ((draw * 4096) + level) * 16 + purpose


def grid(x0, y0, side, channels):
    c, y, x = np.meshgrid(range(channels), range(side), range(side), indexing="ij")
    return x + x0, y + y0, c


def normals(x0, y0, side, channels, level, draw=0, purpose=0):
    w = words(*grid(x0, y0, side, channels), stream(purpose, level, draw))
    u, v = ((k.astype(float) + 0.5) / 2.0**32 for k in w[:2])
    return np.sqrt(-2 * np.log(u)) * np.cos(2 * math.pi * v)


def signs(x0, y0, side, channels, draw):
    w = words(*grid(x0, y0, side, channels), stream(1, 0, draw))
    return np.where(w[0] & np.uint64(1), 1.0, -1.0)


# ---------------------------------------------------------------------------------------------
# Generative networks


class Network:
    """A model of the tests in double precision, and its patches."""

    def __init__(self, name):
        net, options = networks()[name]
        self.net = net.double()
        tiling = contract_of(name, options)["properties"]["otb:tiling"]
        multiple = tiling.get("multiple", 1)
        self.patch = tiling["patch"]
        self.margin = -(-tiling["halo"] // multiple) * multiple

    def planes(self, arrays, valid, count, score):
        """Calls ``score(x, patches)`` patch by patch; its planes (count, H, W) put together.

        ``x`` is the origin of the patch, ``patches`` the two dates, scaled.
        """
        import torch

        scaled = []
        for x in arrays[:2]:
            z = (x.astype(float) - MEAN) / STDDEV
            scaled.append(np.where(valid, z, 0.0))
        height, width = valid.shape
        step = self.patch - 2 * self.margin
        made = np.zeros((count, height, width))

        def mirror(i, n):
            i = np.abs(i) % (2 * (n - 1))
            return np.where(i < n, i, 2 * (n - 1) - i)

        for y0 in range(0, height, step):
            for x0 in range(0, width, step):
                rows = mirror(np.arange(self.patch) + y0 - self.margin, height)
                columns = mirror(np.arange(self.patch) + x0 - self.margin, width)
                patches = [torch.from_numpy(z[:, rows][:, :, columns].copy()) for z in scaled]
                planes = score(x0 - self.margin, y0 - self.margin, patches)
                h, w = min(step, height - y0), min(step, width - x0)
                cut = slice(self.margin, None)
                made[:, y0 : y0 + h, x0 : x0 + w] = planes[:, cut, cut][:, :h, :w]
        return made

    def velocity(self, x, t, other=None):
        """Of one image (C, H, W) at time t, given another one or not."""
        import torch

        one = torch.ones(1, dtype=torch.float64)
        given = torch.zeros_like(x) if other is None else other
        return self.net(x[None], t * one, given[None], (other is not None) * one)[0]


def levels(count, low=-6.0, high=8.0):
    """(time of a flow, width in log-SNR) of each level."""
    width = (high - low) / count
    return [(1 / (1 + math.exp(-(low + (k + 0.5) * width) / 2)), width) for k in range(count)]


def noisy(network, kind, count, channels, pairs=1, encode=None):
    """Score of pmi and cond: both directions, (2, H, W)."""
    import torch

    def score(x0, y0, patches):
        data = [encode(p) for p in patches] if encode else patches
        factor = network.patch // data[0].shape[-1]
        side = network.patch // factor
        planes = []
        for target, source in ((1, 0), (0, 1)):
            x, other = data[target], data[source]
            total = torch.zeros(side, side, dtype=torch.float64)
            for k, (t, width) in enumerate(levels(count)):
                for draw in range(pairs):
                    e = normals(x0 // factor, y0 // factor, side, channels, k, draw)
                    for sign in (1.0, -1.0):
                        noise = sign * torch.from_numpy(e)
                        state = t * x + (1 - t) * noise
                        given = state - t * network.velocity(state, t, other)
                        if kind == "pmi":
                            known = state - t * network.velocity(state, t)
                        else:
                            known = (1 - t) / (t * t + (1 - t) ** 2) * state
                        errors = (noise - given) ** 2 - (noise - known) ** 2
                        total += 0.5 * width * errors.sum(0) / (2 * pairs)
            if kind == "cond":
                nats = 0.5 * math.log(2 * math.pi) + (0.0 if encode else math.log(STDDEV))
                total += (0.5 * x**2 + nats).sum(0)
            planes.append(total.repeat_interleave(factor, 0).repeat_interleave(factor, 1))
        return torch.stack(planes).detach().numpy()

    return score


def application(files, folder, models, model, **options):
    options = dict(dict(smooth=0, seed=SEED, model=models / model), **options)
    return maps(folder, ["out"], **options, **files)[0]["out"]


@pytest.mark.parametrize("kind", ["pmi", "cond"])
def test_conditional_flow(kind, arrays, valid, files, likelihood_models, tmp_path):
    import torch

    network = Network("flow.pt")
    with torch.no_grad():
        wanted = network.planes(arrays, valid, 2, noisy(network, kind, 3, BANDS, pairs=2))
    options = dict(estimator=kind, levels=3, pairs=2)
    directions = {"forward": wanted[0], "backward": wanted[1], "both": wanted.mean(0)}

    def job(direction):
        here = tmp_path / direction
        more = dict(options, direction=direction)
        return lambda: application(files, here, likelihood_models, "flow.pt", **more)

    found = together({d: job(d) for d in directions})
    for direction, plane in directions.items():
        close(found[direction], plane, valid, 1e-3, 2e-3)


def test_pmi_of_latents(arrays, valid, files, likelihood_models, tmp_path):
    import torch

    network = Network("latent.pt")
    with torch.no_grad():
        score = noisy(network, "pmi", 2, 4, encode=lambda p: network.net.encode(p[None])[0])
        wanted = network.planes(arrays, valid, 2, score).mean(0)
    found = application(files, tmp_path, likelihood_models, "latent.pt", estimator="pmi", levels=2)
    close(found, wanted, valid, 1e-3, 2e-3)


def test_latent_distance(arrays, valid, files, likelihood_models, tmp_path):
    """Mean over steps and channels of the squared difference of noises along two encodings."""
    import torch

    network = Network("flow.pt")
    steps, low, high = 5, -2.0, 6.0
    begin, end = (1 / (1 + math.exp(-v / 2)) for v in (high, low))

    def score(x0, y0, patches):
        states = [begin * p for p in patches]
        total = 0.0
        for k in range(steps):
            t = begin + (end - begin) * k / steps
            velocities = [network.velocity(s, t) for s in states]
            noises = [s - t * v for s, v in zip(states, velocities)]
            total = total + ((noises[0] - noises[1]) ** 2).mean(0) / steps
            states = [s + (end - begin) / steps * v for s, v in zip(states, velocities)]
        return total[None].numpy()

    with torch.no_grad():
        wanted = network.planes(arrays, valid, 1, score)[0]
    options = dict(estimator="latent", steps=steps)
    found = application(files, tmp_path, likelihood_models, "flow.pt", **options)
    close(found, wanted, valid, 1e-3, 1e-5)


def test_denoising_of_a_discrete_diffusion(arrays, valid, files, likelihood_models, tmp_path):
    """Level by level, standardised over the scene; levels are those steps that are nearest."""
    import torch

    network, count = Network("epsilon.pt"), 3
    beta = np.linspace(BETAS["beta_start"], BETAS["beta_end"], BETAS["steps"])
    squared = np.cumprod(1 - beta)
    snr = np.log(squared / (1 - squared))
    width = 14.0 / count
    wanted_snr = [-6.0 + (k + 0.5) * width for k in range(count)]
    steps = [int(np.argmin(np.abs(snr - s))) for s in wanted_snr]

    def score(x0, y0, patches):
        planes = []
        for k, step in enumerate(steps):
            alpha, sigma = math.sqrt(squared[step]), math.sqrt(1 - squared[step])
            e = normals(x0, y0, network.patch, BANDS, k)
            for date in (1, 0):
                total = 0.0
                for sign in (1.0, -1.0):
                    noise = sign * torch.from_numpy(e)
                    state = alpha * patches[date] + sigma * noise
                    told = network.net(state[None], torch.tensor([step]))[0]
                    total = total + ((noise - told) ** 2).sum(0)
                planes.append(total)
        return torch.stack(planes).numpy()

    with torch.no_grad():
        planes = network.planes(arrays, valid, 2 * count, score)
    wanted = np.zeros(valid.shape)
    for k in range(count):
        mean = planes[2 * k : 2 * k + 2].mean(0)
        wanted += (mean - mean[valid].mean()) / mean[valid].std() / count
    options = dict(estimator="denoise", levels=count)
    found = application(files, tmp_path, likelihood_models, "epsilon.pt", **options)
    close(found, wanted, valid, 1e-3, 1e-3)


def log_likelihood(network, steps, solver, probes):
    """Minus the log-likelihood of each date by itself, nats: date 2, date 1."""
    import torch

    tableau = {
        "midpoint": ([0.0, 0.5], [0.0, 1.0]),
        "heun": ([0.0, 1.0], [0.5, 0.5]),
        "rk4": ([0.0, 0.5, 0.5, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    }

    def score(x0, y0, patches):
        nodes, weights = tableau[solver]
        side = network.patch
        drawn = [torch.from_numpy(signs(x0, y0, side, BANDS, p)) for p in range(probes)]
        planes = []
        for date in (1, 0):
            state, step = patches[date].clone(), -1.0 / steps
            divergence = torch.zeros(side, side, dtype=torch.float64)
            for i in range(steps):
                following, slope = state.clone(), None
                for node, weight in zip(nodes, weights):
                    at = state if slope is None else state + step * node * slope
                    x = at.detach().requires_grad_()
                    slope = network.velocity(x, 1.0 + step * (i + node))
                    if weight:
                        for e in drawn:
                            (g,) = torch.autograd.grad(slope, x, e, retain_graph=True)
                            divergence += step * weight * (g * e).sum(0) / probes
                    slope = slope.detach()
                    following += step * weight * slope
                state = following
            nats = BANDS * (0.5 * math.log(2 * math.pi) + math.log(STDDEV))
            planes.append(0.5 * (state**2).sum(0) + nats - divergence)
        return torch.stack(planes).numpy()

    return score


@pytest.mark.parametrize("solver, steps", [("midpoint", 3), ("heun", 2), ("rk4", 2)])
def test_log_likelihood_of_a_flow(
    solver, steps, arrays, valid, files, likelihood_models, tmp_path
):
    """In bits per dimension."""
    network, probes = Network("flow.pt"), 2
    score = log_likelihood(network, steps, solver, probes)
    wanted = network.planes(arrays, valid, 2, score).mean(0)
    options = dict(estimator="loglik", steps=steps, solver=solver, probes=probes)
    found = application(files, tmp_path, likelihood_models, "flow.pt", **options)
    bits = 1 / (math.log(2) * BANDS)
    close(np.where(valid, found * bits, -9999), wanted * bits, valid, 0, 1e-3)


def test_exact_log_likelihood_is_that_of_the_gaussian(
    arrays, valid, files, likelihood_models, tmp_path
):
    """The velocity is exact and acts pixel by pixel: what is left is the error of the solver."""
    options = dict(estimator="loglik", probekind="exact", solver="rk4", steps=25)
    found = application(files, tmp_path, likelihood_models, "gauss.pt", **options)
    wanted = 0.0
    for x in arrays[:2]:
        z = (np.where(valid, x, MEAN).astype(float) - MEAN) / STDDEV
        nats = 0.5 * ((z - MARGINAL[0]) / MARGINAL[1]) ** 2
        nats += math.log(MARGINAL[1]) + 0.5 * math.log(2 * math.pi) + math.log(STDDEV)
        wanted = wanted + nats.sum(0) / 2
    bits = 1 / (math.log(2) * BANDS)
    close(np.where(valid, found * bits, -9999), wanted * bits, valid, 0, 1e-3)


def test_pmi_and_cond_tend_to_those_of_the_gaussian(
    arrays, valid, files, likelihood_models, tmp_path
):
    """Many levels and draws: closed forms, up to the noise of the draws and what lies beyond."""
    many = dict(levels=40, pairs=4)
    pmi, cond = (
        application(files, tmp_path / k, likelihood_models, "gauss.pt", estimator=k, **many)
        for k in ("pmi", "cond")
    )
    z = [(np.where(valid, x, MEAN).astype(float) - MEAN) / STDDEV for x in arrays[:2]]

    def nats(a, mean, deviation):
        constant = math.log(deviation) + 0.5 * math.log(2 * math.pi)
        return 0.5 * ((a - mean) / deviation) ** 2 + constant

    deviation = MARGINAL[1] * math.sqrt(1 - CORRELATION**2)
    wanted = {"pmi": 0.0, "cond": 0.0}
    for target, source in ((1, 0), (0, 1)):
        mean = MARGINAL[0] + CORRELATION * (z[source] - MARGINAL[0])
        given = nats(z[target], mean, deviation)
        wanted["pmi"] += (given - nats(z[target], *MARGINAL)).sum(0) / 2
        wanted["cond"] += (given + math.log(STDDEV)).sum(0) / 2
    for name, found in (("pmi", pmi), ("cond", cond)):
        a, b = found[valid], wanted[name][valid]
        assert np.corrcoef(a, b)[0, 1] > 0.98, name
        assert abs((a - b).mean()) < 0.15 * b.std(), name


@pytest.mark.parametrize("estimator", ["recon", "odeed"])
def test_what_comes_back_from_noise(estimator, arrays, valid, files, likelihood_models, tmp_path):
    import torch

    network, count = Network("flow.pt"), 2

    def euler(state, begin, end, steps):
        for k in range(steps):
            t = begin + (end - begin) * k / steps
            state = state + (end - begin) / steps * network.velocity(state, t)
        return state

    def score(x0, y0, patches):
        planes = []
        for k in range(count if estimator == "recon" else 1):
            amount = 0.5 * (k + 1) / count
            e = torch.from_numpy(normals(x0, y0, network.patch, BANDS, k))
            for date in (1, 0):
                x = patches[date]
                if estimator == "recon":
                    steps = math.ceil(20 * amount - 1e-9)
                    back = euler((1 - amount) * x + amount * e, 1 - amount, 1.0, steps)
                else:
                    back = euler(euler(x, 1.0, 0.0, 4), 0.0, 1.0, 4)
                planes.append(((back - x) ** 2).mean(0))
        return torch.stack(planes).numpy()

    with torch.no_grad():
        planes = network.planes(arrays, valid, 2 * count if estimator == "recon" else 2, score)
    if estimator == "recon":
        wanted = np.zeros(valid.shape)
        for k in range(count):
            mean = planes[2 * k : 2 * k + 2].mean(0)
            wanted += (mean - mean[valid].mean()) / mean[valid].std() / count
        options = dict(levels=count)
    else:
        wanted, options = planes.mean(0), dict(steps=4)
    options["estimator"] = estimator
    found = application(files, tmp_path, likelihood_models, "flow.pt", **options)
    close(found, wanted, valid, 1e-3, 1e-3)


def test_masked_autoencoder(arrays, valid, files, likelihood_models, tmp_path):
    """Each group of tokens visible once: mean over bands and the groups that hide a token."""
    import torch

    network = Network("mae.pt")
    tokens = network.patch // TOKEN

    def score(x0, y0, patches):
        y, x = np.mgrid[:tokens, :tokens]
        drawn = words(x + x0 // TOKEN, y + y0 // TOKEN, 0, stream(3))[0] % np.uint64(GROUPS)
        group = np.kron(drawn.astype(int), np.ones((TOKEN, TOKEN), int))
        planes = []
        for date in (1, 0):
            total = 0.0
            for visible in range(GROUPS):
                hidden = torch.from_numpy((group != visible).astype(float))
                told = network.net((patches[date] * (1 - hidden))[None], hidden[None, None])[0]
                total = total + (hidden * (told - patches[date]) ** 2).mean(0) / (GROUPS - 1)
            planes.append(total)
        return torch.stack(planes).numpy()

    with torch.no_grad():
        wanted = network.planes(arrays, valid, 2, score).mean(0)
    found = application(files, tmp_path, likelihood_models, "mae.pt")
    close(found, wanted, valid, 1e-3, 1e-4)


@pytest.mark.parametrize("model", ["flow.pt", "encoder.pt"])
def test_features(model, arrays, valid, files, likelihood_models, tmp_path):
    import torch

    network = Network(model)
    features = network.net.features if model == "flow.pt" else network.net

    def score(x0, y0, patches):
        a, b = (features(p[None])[0] for p in patches)
        return (1 - torch.nn.functional.cosine_similarity(a, b, dim=0))[None].numpy()

    with torch.no_grad():
        wanted = network.planes(arrays, valid, 1, score)[0]
    options = dict(estimator="feature")
    found = application(files, tmp_path, likelihood_models, model, **options)
    close(found, wanted, valid, 1e-3, 1e-4)


def test_density_ratio(arrays, dates, valid, files, likelihood_models, tmp_path):
    """z(regression) + weight z(logit), both smoothed first as the contract says."""
    import torch

    network, sigma = Network("ratio.pt"), 2.0
    found_residuals = residuals(dates, valid)
    lengths = [length(r, valid, "l2") for r in found_residuals]
    logits = []
    for target, source, r in ((1, 0, found_residuals[0]), (0, 1, found_residuals[1])):
        four = np.concatenate([dates[target], dates[target] - r, dates[source], r])
        wide = np.pad(np.where(valid, four, 0.0), ((0, 0), (4, 4), (4, 4)), "reflect")
        with torch.no_grad():
            logit = network.net(torch.from_numpy(wide)[None])[0, 0].numpy()
        logits.append(logit[4:-4, 4:-4])
    wanted = np.zeros(valid.shape)
    for planes, weight in ((lengths, 1.0), (logits, 0.5)):
        mean = sum(smooth(p, valid, sigma) for p in planes) / 2
        wanted += weight * (mean - mean[valid].mean()) / mean[valid].std()
    found, _ = maps(tmp_path, ["out"], model=likelihood_models / "ratio.pt", **files)
    close(found["out"], wanted, valid, 2e-3, 2e-3)
