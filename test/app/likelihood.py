"""Scenes, tiny models and helpers of the end-to-end tests of otbcli_ChangeLikelihood.

Networks have random weights, or are the exact field of a Gaussian whose likelihood is known.
"""

import pathlib
import subprocess

import numpy as np
import pytest
from conftest import BIN, Run, command, environment, make_scene, read, texture, write

LAUNCHER = BIN / "otbcli_ChangeLikelihood"
WIDTH, HEIGHT, BANDS = 331, 287, 3  # no multiple of anything, larger than a cell of 256
MEAN, STDDEV = 1700.0, 800.0
NODATA = {"out": -9999.0, "pvalue": -1.0, "change": 255.0, "which": 255.0}
KINDS = {"out": "Float32", "pvalue": "Float32", "change": "Byte", "which": "Byte"}
FLOW = {"kind": "velocity", "schedule": "fm_linear", "time": "continuous01", "data_at": 1}
BETAS = dict(type="linear_beta", steps=50, beta_start=0.001, beta_end=0.25)
EPSILON = {"kind": "epsilon", "schedule": BETAS, "time": "discrete_index"}
GROUPS, TOKEN = 3, 8
MARGINAL = (0.2, 0.8)  # mean and standard deviation of the Gaussian of a date by itself
CORRELATION = 0.6  # of the dates of that model

# Name: model (None: no network), parameters, are there random numbers, are there two directions.
CASES = {
    "regress": (None, dict(estimator="regress"), False, True),
    "mahalanobis": (None, dict(estimator="regress", norm="mahalanobis"), False, True),
    "student": (None, dict(estimator="regress", norm="student"), False, True),
    "cva": (None, dict(estimator="cva"), False, False),
    "mad": (None, dict(estimator="mad"), False, False),
    "irmad": (None, dict(estimator="irmad"), False, False),
    "siroc": (None, dict(estimator="siroc"), False, False),
    "ratio": ("ratio.pt", dict(estimator="ratio"), False, True),
    "pmi": ("flow.pt", dict(estimator="pmi", levels=2), True, True),
    "cond": ("flow.pt", dict(estimator="cond", levels=2), True, True),
    "latent": ("epsilon.pt", dict(estimator="latent", steps=3), False, False),
    "latents": ("latent.pt", dict(estimator="latent", steps=3), False, False),
    "latents_pmi": ("latent.pt", dict(estimator="pmi", levels=2), True, True),
    "denoise": ("epsilon.pt", dict(estimator="denoise", levels=2), True, True),
    "loglik": ("flow.pt", dict(estimator="loglik", steps=1, probes=1), True, True),
    "exact": ("gauss.pt", dict(estimator="loglik", steps=1, probekind="exact"), False, True),
    "recon": ("latent.pt", dict(estimator="recon", levels=2), True, True),
    "odeed": ("flow.pt", dict(estimator="odeed", steps=2, rule="otsu"), False, True),
    "mae": ("mae.pt", dict(estimator="mae"), True, True),
    "feature": ("flow.pt", dict(estimator="feature"), False, False),
    "encoder": ("encoder.pt", dict(estimator="feature"), False, False),
}


def outputs_of(case):
    """Names of all maps that an estimator makes."""
    return list(KINDS) if CASES[case][3] else ["out", "pvalue", "change"]


def case_parameters(case, models):
    model, parameters, _, _ = CASES[case]
    return dict(parameters, model=models / model) if model else dict(parameters)


# ---------------------------------------------------------------------------------------------
# Runs


def run(*words, threads=2, timeout=120, cwd=None, preexec=None, **parameters):
    """Runs the application to its end; ``logsnr_low`` stands for the parameter logsnr.low."""
    parameters = {k.replace("logsnr_", "logsnr."): v for k, v in parameters.items()}
    done = subprocess.run(
        [str(LAUNCHER)] + [str(w) for w in words] + command(**parameters),
        env=environment(threads),
        cwd=cwd,
        preexec_fn=preexec,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    return Run(done.returncode, done.stdout.decode("utf-8", "replace"))


def maps(folder, names, options="", prefix="", **parameters):
    """Runs and reads: ``{output: pixels}`` of the outputs ``names``, and the run."""
    folder = pathlib.Path(folder)
    folder.mkdir(exist_ok=True)
    paths = {name: folder / f"{prefix}{name}.tif" for name in names}
    done = run(**{n: f"{p}{options}" for n, p in paths.items()}, **parameters).ok()
    return {name: read(path) for name, path in paths.items()}, done


def same(found, wanted, window=None):
    """Asserts that arrays hold the same bits; ``window`` (x, y, w, h) is cut from ``wanted``."""
    for name, pixels in found.items():
        other = wanted[name]
        if window:
            x, y, w, h = window
            other = other[..., y : y + h, x : x + w]
        assert pixels.dtype == other.dtype and pixels.shape == other.shape, name
        one, two = (np.ascontiguousarray(a).view(f"u{a.itemsize}") for a in (pixels, other))
        different = one != two
        assert not different.any(), f"{name}: {different.sum()} of {different.size} pixels"


# ---------------------------------------------------------------------------------------------
# Scenes


def pair(rng, height, width, bands=BANDS, changed=True, noise=120.0):
    """Two dates as arrays, and where they differ by more than gain, offset and noise."""
    x1 = texture(rng, bands, height, width)
    gain = np.linspace(0.7, 1.2, bands)[:, None, None]
    x2 = 300 + gain * x1 + noise * rng.standard_normal(x1.shape)
    truth = np.zeros((height, width), bool)
    if changed:
        for y, x, side in ((0.2, 0.25, 0.09), (0.55, 0.7, 0.12), (0.75, 0.2, 0.06)):
            r, c, s = int(y * height), int(x * width), max(2, int(side * height))
            truth[r : r + s, c : c + s] = True
        x2[:, truth] += 1800 * np.sign(2500 - x2[:, truth])
    return x1, x2.astype(np.float32), truth


def grown(truth, margin):
    """Where something is true not farther away than ``margin`` pixels along rows and columns."""
    for axis in (0, 1):
        moved = [np.roll(truth, k, axis) for k in range(-margin, margin + 1)]
        truth = np.any(moved, axis=0)
    return truth


def write_pair(folder, x1, x2, prefix="", **options):
    """``dict(in1=..., in2=...)`` of files."""
    options = dict(dict(nodata=0), **options)
    return dict(
        in1=write(folder / f"{prefix}1.tif", x1, **options),
        in2=write(folder / f"{prefix}2.tif", x2, **options),
    )


@pytest.fixture(scope="session")
def holes(tmp_path_factory):
    """The scene with no-data wedges, NaN, infinities and a mask."""
    return make_scene(tmp_path_factory.mktemp("holes"), WIDTH, HEIGHT, BANDS, seed=11)


# ---------------------------------------------------------------------------------------------
# Models


def networks():
    """``{file: (network, options of its contract)}``."""
    import torch
    from torch import Tensor, nn

    class Velocity(nn.Module):
        """Of an image, given another one or not."""

        def __init__(self, bands: int = BANDS):
            super().__init__()
            self.first = nn.Conv2d(2 * bands, 8, 3, padding=1)
            self.last = nn.Conv2d(8, bands, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
            given = condition * flag[:, None, None, None]
            y = torch.tanh(self.first(torch.cat([x, given], 1)) + t[:, None, None, None])
            return 2.0 * self.last(y)

        @torch.jit.export
        def features(self, x: Tensor) -> Tensor:
            return torch.tanh(self.first(torch.cat([x, torch.zeros_like(x)], 1)))

    class Cut(Velocity):
        """The same without a gradient."""

        def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
            with torch.no_grad():
                given = condition * flag[:, None, None, None]
                y = torch.tanh(self.first(torch.cat([x, given], 1)) + t[:, None, None, None])
                return 2.0 * self.last(y)

    class Epsilon(nn.Module):
        """Noise, told the index of a step."""

        def __init__(self, bands: int = BANDS):
            super().__init__()
            self.table = nn.Embedding(BETAS["steps"], 8)
            self.first = nn.Conv2d(bands, 8, 3, padding=1)
            self.last = nn.Conv2d(8, bands, 3, padding=1)

        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            y = torch.tanh(self.first(x) + 0.3 * self.table(t)[:, :, None, None])
            return 2.0 * self.last(y)

    class Latent(nn.Module):
        """A velocity of latents of a quarter of the side."""

        def __init__(self, bands: int = BANDS, channels: int = 4):
            super().__init__()
            self.velocity = Velocity(channels)
            self.down = nn.Conv2d(bands, channels, 4, stride=4)
            self.up = nn.ConvTranspose2d(channels, bands, 4, stride=4)

        def forward(self, z: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
            return self.velocity(z, t, condition, flag)

        @torch.jit.export
        def encode(self, x: Tensor) -> Tensor:
            return 3.0 * self.down(x)

        @torch.jit.export
        def decode(self, z: Tensor) -> Tensor:
            return self.up(z)

    class Masked(nn.Module):
        """Predicts hidden tokens from what is around."""

        def __init__(self, bands: int = BANDS):
            super().__init__()
            self.mix = nn.Conv2d(bands + 1, bands, 5, padding=2)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            return self.mix(torch.cat([x, mask], 1))

    class Plain(nn.Module):
        """Some channels of an image."""

        def __init__(self, channels: int, out: int):
            super().__init__()
            self.mix = nn.Conv2d(channels, out, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.mix(x))

    class Gauss(nn.Module):
        """The exact velocity where dates are Gaussian, pixel by pixel and band by band."""

        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(MARGINAL[0]), requires_grad=False)
            self.stddev = nn.Parameter(torch.tensor(MARGINAL[1]), requires_grad=False)
            self.rho = nn.Parameter(torch.tensor(CORRELATION), requires_grad=False)

        def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
            f = flag[:, None, None, None]
            s = t[:, None, None, None]
            mean = self.mean + f * self.rho * (condition - self.mean)
            variance = self.stddev**2 * (1.0 - f * self.rho**2)
            total = s * s * variance + (1.0 - s) ** 2
            away = (x - s * mean) / total
            return mean + s * variance * away - (1.0 - s) * away

    torch.manual_seed(5)
    small = dict(patch=32, halo=2)
    methods = {"features": {"channels": 8, "scale": 1}}
    latents = {"encode": {"channels": 4, "scale": 4}, "decode": {"channels": BANDS, "scale": 1}}
    made = {
        "flow.pt": (Velocity(), dict(small, generative=FLOW, null="flag", methods=methods)),
        "nograd.pt": (Cut(), dict(small, generative=FLOW, null="flag")),
        "epsilon.pt": (Epsilon(), dict(small, generative=EPSILON, time_type="int64")),
        "latent.pt": (
            Latent(),
            dict(patch=64, halo=8, multiple=4, generative=FLOW, null="flag", methods=latents),
        ),
        "mae.pt": (
            Masked(),
            dict(patch=64, halo=8, multiple=TOKEN, masked={"patch": TOKEN, "groups": GROUPS}),
        ),
        "ratio.pt": (
            Plain(4 * BANDS, 1),
            dict(patch=32, halo=1, ratio={"weight": 0.5, "smooth": 2.0}),
        ),
        "encoder.pt": (Plain(BANDS, 5), dict(patch=32, halo=1, features={"channels": 5})),
        "gauss.pt": (Gauss(), dict(patch=32, halo=0, generative=FLOW, null="flag")),
    }
    return {name: (net.eval(), options) for name, (net, options) in made.items()}


def contract_of(name, options):
    from otbtorch.contract import change_likelihood, z_score

    return change_likelihood(
        pathlib.Path(name).stem,
        [f"b{b + 1}" for b in range(BANDS)],
        z_score([MEAN] * BANDS, [STDDEV] * BANDS),
        license="CC0-1.0",
        training_data="none: random weights, for tests",
        **dict(dict(nodata=0.0), **options),
    )


@pytest.fixture(scope="session")
def likelihood_models(tmp_path_factory):
    """Folder of the models."""
    import torch
    from otbtorch import export

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("likelihood")
    for name, (net, options) in networks().items():
        export.export(net, contract_of(name, options), str(folder / name))
    return folder
