"""Measures the receptive field of a network and whether patches may be cropped or must be blended.

Three measurements, on random inputs in double precision where the network allows it:

* *influence*: |d y_centre / d x| by vector-Jacobian products, as in W. Luo, Y. Li, R. Urtasun,
  R. Zemel, "Understanding the effective receptive field in deep convolutional neural networks",
  NeurIPS 2016. It tells how the influence decays with the distance;
* *replacement*: everything beyond a distance of the centre is replaced by other values; the
  smallest distance at which the centre does not move is the radius. Gradients miss what a max or a
  ReLU hid on these very inputs, replacement much less;
* *shifts*: whether f(shift x) = shift f(x) for shifts by 1, 2, 4, ... pixels, away from the
  borders, while what lies farther than the radius differs.

Distances are Chebyshev distances, in pixels: max(|dy|, |dx|).
"""

import copy
import io
import math
from dataclasses import asdict, dataclass, field
from typing import List, Optional

import torch

from .contract import TASK_SERIES, ceil_to_multiple, is_latent
from .export import by_pixel, forward_inputs, make_inputs, named_outputs, reason_of

STRIDES = (1, 2, 4, 8, 16, 32, 64)
BY_PIXEL = "the network labels pixel by pixel: there are no patches to crop, and no halo to measure"
LATENT = "the network sees latents, which depend on the method encode: no halo can be measured"
# Pixels of one batch, of some ten bands: bounds the memory of the gradients.
_PIXEL_BUDGET = 1 << 19


@dataclass
class HaloReport:
    """What ``probe_halo`` measured (pixels) and concludes.

    ``radius`` is None where pixels farther than ``reach`` matter, the largest distance that could
    be told on patches of side ``size``. ``radius_999`` holds 99.9 % of the influence of the
    gradient, ``radius_gradient`` all of it. ``stride`` is the smallest shift that the network
    commutes with, None where it commutes with none. ``blend`` and ``halo`` are the recommendation
    (``halo`` None for ``hann``).
    """

    size: int
    dtype: str
    samples: int
    reach: int
    radius: Optional[int]
    radius_999: int
    radius_gradient: int
    stride: Optional[int]
    blend: str
    halo: Optional[int]
    conclusion: str
    fixed_size: Optional[str] = None
    shift_errors: dict = field(default_factory=dict)
    warnings: List[str] = field(default_factory=list)

    def to_dict(self):
        return asdict(self)

    def __str__(self):
        radius = f"{self.radius} px" if self.radius is not None else f"more than {self.reach} px"
        stride = f"{self.stride} px" if self.stride is not None else "none found"
        errors = ", ".join(f"{s}: {e:.1e}" for s, e in self.shift_errors.items())
        lines = [
            f"probed at {self.size} x {self.size}, {self.dtype}, {self.samples} samples",
            f"  radius of influence     {radius}",
            f"  99.9 % of the gradient  {self.radius_999} px "
            f"(all of it: {self.radius_gradient} px)",
            f"  commutes with shifts of {stride} (relative error by shift: {errors})",
            f"  conclusion: {self.conclusion}",
        ]
        if self.fixed_size:
            lines.insert(1, f"  {self.fixed_size}")
        lines += [f"  warning: {w}" for w in self.warnings]
        return "\n".join(lines)


def probe_halo(model, contract, n=8, seed=0):
    """Measures the halo and the stride of a network and compares them with its contract.

    Args:
        model: a ``torch.nn.Module`` or a loaded TorchScript module, on the CPU; it is copied.
        contract: a valid contract, as a dict.
        n: number of random inputs, at least one for each of the positions of the centre.
        seed: of the random inputs.

    Returns:
        HaloReport.
    Raises:
        ValueError: the network labels single pixels, from windows of a declared side: no patches
            are cut, and there is no halo; or it sees latents.
        RuntimeError: the network cannot be run on the patch of its contract.
    """
    if by_pixel(contract):
        raise ValueError(BY_PIXEL)
    if is_latent(contract["properties"]):
        raise ValueError(LATENT)
    tiling = contract["properties"]["otb:tiling"]
    patch, multiple = tiling["patch"], tiling.get("multiple", 1)
    probe = _Probe(model, contract, seed)
    # Twice the patch and room for the centres, so that the border does not cut the influence.
    size, fixed = ceil_to_multiple(2 * patch + STRIDES[-1], math.lcm(multiple, STRIDES[-1])), None
    reason = probe.failure(size)
    if reason:
        fixed = f"fixed size, probed on the patch only: {reason}"
        size = patch
        reason = probe.failure(size)
        if reason:
            raise RuntimeError(f"the network fails on its own patch, {patch}: {reason}")

    elif patch >= 192 and probe.moves(patch, [patch // 2], 3 * patch // 8):
        # Attention over twice the patch would take 16 times the memory, and nothing is gained.
        size = patch

    positions = _positions(size, multiple)
    reach = min(positions[0], size - 1 - positions[-1])
    centres = [positions[i % len(positions)] for i in range(max(n, len(positions)))]
    radius_999, radius_gradient = probe.gradient_radii(size, centres)
    radius = probe.replacement_radius(size, centres, reach, radius_gradient)

    strides = sorted(set(STRIDES) | {multiple})
    errors = probe.shift_errors(size, radius, [s for s in strides if s <= size // 4])
    commuting = [s for s, e in errors.items() if e <= probe.tolerance]
    stride = commuting[0] if commuting else None

    report = HaloReport(
        size=size,
        dtype=str(probe.dtype).replace("torch.", ""),
        samples=len(centres),
        reach=reach,
        radius=radius,
        radius_999=radius_999,
        radius_gradient=radius_gradient,
        stride=stride,
        blend="crop" if radius is not None and stride is not None else "hann",
        halo=None,
        conclusion="",
        fixed_size=fixed,
        shift_errors=errors,
    )
    _conclude(report, tiling)
    return report


def _conclude(report, tiling):
    patch, multiple = tiling["patch"], tiling.get("multiple", 1)
    halo, blend = tiling["halo"], tiling.get("blend", "crop")
    radius, stride, warn = report.radius, report.stride, report.warnings.append
    if report.blend == "crop":
        report.halo = radius
        cut = ceil_to_multiple(radius, stride)
        report.conclusion = (
            f"crop is exact with halo {radius} and multiple {stride} "
            f"({cut} px cut from each side of a patch)"
        )
    elif radius is None:
        report.conclusion = (
            f"hann: pixels more than {report.reach} px away matter (normalisation, attention or "
            "pooling over the whole patch, or a field too large for it): cropping would show seams"
        )
    else:
        report.conclusion = (
            f"hann: what lies within {radius} px decides, but the network does not commute with "
            "shifts (it knows where a pixel is in the patch): cropping would show seams"
        )
    if blend == "crop" and report.blend == "hann":
        warn("the contract declares crop, which is not exact for this network: declare hann")
    if report.blend == "crop":
        if ceil_to_multiple(halo, multiple) < radius and blend == "crop":
            warn(
                f"the contract's halo, {halo}, is too small: pixels up to {radius} px away matter"
                + (
                    f" ({report.radius_999} px hold 99.9 % of the gradient)"
                    if report.radius_999 < radius
                    else ""
                )
            )
        if multiple % stride:
            warn(
                f"the contract's multiple, {multiple}, is not a multiple of the stride of the "
                f"network, {stride}"
            )
        if blend == "crop" and 2 * ceil_to_multiple(radius, math.lcm(multiple, stride)) >= patch:
            warn(f"a patch of {patch} is too small for a radius of {radius}: nothing is left of it")
        if blend == "hann":
            warn("the contract declares hann; crop would be exact, and cheaper")


def _positions(size, multiple):
    """Sorted centres that see the stride in different phases: its radius depends on the phase.

    Steps of 9 over 64 pixels fall on all the phases of strides up to 8 and spread evenly over
    those of 16 to 64; the declared stride is added where it does not divide 64.
    """
    half = size // 2
    if size < 2 * STRIDES[-1]:
        span = min(multiple, max(1, size // 4))
        return sorted({half - span // 2 + p for p in _spread(span)})
    found = {half - 32 + 9 * i for i in range(8)}
    if STRIDES[-1] % multiple:
        found |= {half - multiple // 2 + p for p in _spread(multiple)}
    return sorted(found)


def _spread(count):
    return {round(i * (count - 1) / 7) for i in range(8)}


class _Probe:
    """A private copy of the network, in double precision if it runs in it, and its inputs."""

    def __init__(self, model, contract, seed):
        self.contract, p = contract, contract["properties"]
        self.generator = torch.Generator().manual_seed(seed)
        entries = forward_inputs(contract)
        self.masks = [e["otb:role"] in ("valid", "token_mask") for e in entries]
        self.kept = [
            p["otb:task"] != TASK_SERIES or e["otb:role"] != "aux" for e in p["mlm:output"]
        ]
        self.planes = sum(math.prod(n for n in e["input"]["shape"][1:-2] if n > 0) for e in entries)
        self.dtype, self.tolerance = torch.float64, 1e-9
        self.model = _copy(model).double().eval()
        patch = contract["properties"]["otb:tiling"]["patch"]
        if self.failure(patch):
            # A constant of the graph in single precision, or an operator without double.
            self.dtype, self.tolerance = torch.float32, 1e-4
            self.model = _copy(model).float().eval()
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)

    def failure(self, size):
        """Why the network cannot be run at this size; an empty text if it can."""
        try:
            with torch.no_grad():
                outputs = self.run(self.inputs(1, size))
            bad = [list(y.shape) for y in outputs if list(y.shape[-2:]) != [size, size]]
            return f"an output of shape {bad[0]} at {size} x {size}" if bad else ""
        except Exception as error:
            return reason_of(error)

    def inputs(self, batch, size):
        return make_inputs(self.contract, batch, size, self.generator, self.dtype)

    def run(self, inputs):
        # The optimising executor would recompile for each new shape.
        with torch.jit.optimized_execution(False):
            outputs = named_outputs(self.contract, self.model(*inputs))
        return [y for y, kept in zip(outputs, self.kept) if kept]

    def _chunks(self, positions, size):
        step = max(1, _PIXEL_BUDGET // (size * size * max(1, self.planes // 32)))
        return [positions[i : i + step] for i in range(0, len(positions), step)]

    def gradient_radii(self, size, centres):
        """Radii that hold 99.9 % and all of the influence, worst centre and output."""
        radius_999, radius_all = 0, 0
        mass = {}
        # oneDNN's float32 convolutions leave rounding errors where the gradient is zero.
        with torch.backends.mkldnn.flags(enabled=False):
            for chunk in self._chunks(centres, size):
                for key, profile in self._influence(size, chunk):
                    mass[key] = mass.get(key, 0) + profile
        for profile in mass.values():
            total = float(profile.sum())
            if total == 0:
                continue
            held = torch.cumsum(profile, 0) / total
            radius_999 = max(radius_999, int((held < 0.999).sum()))
            radius_all = max(radius_all, int(profile.nonzero().max()))
        return radius_999, radius_all

    def _influence(self, size, centres):
        """Yields ((output, centre), influence summed by Chebyshev distance)."""
        inputs = self.inputs(len(centres), size)
        spatial = [
            x.requires_grad_(True) for x in inputs if x.is_floating_point() and _is_spatial(x, size)
        ]
        outputs = self.run(inputs)
        for k, y in enumerate(outputs):
            if not y.requires_grad:
                continue
            # A random mix of the channels: one product for all of them.
            cotangent = torch.zeros_like(y)
            for b, c in enumerate(centres):
                cotangent[b, :, c, c] = torch.randn(
                    y.shape[1], generator=self.generator, dtype=self.dtype
                )
            last = k == len(outputs) - 1
            gradients = torch.autograd.grad(
                y, spatial, cotangent, retain_graph=not last, allow_unused=True
            )
            for b, c in enumerate(centres):
                distance = _distance(size, c)
                profile = torch.zeros(size, dtype=torch.float64)
                for gradient in gradients:
                    if gradient is not None:
                        planes = gradient[b].reshape(-1, size, size)
                        influence = planes.abs().sum(0).double()
                        profile.index_add_(0, distance.reshape(-1), influence.reshape(-1))
                yield (k, c), profile

    def replacement_radius(self, size, centres, reach, least):
        """Smallest distance beyond which nothing moves a centre; None if above ``reach``.

        ``least``: a lower bound, the radius of the gradient.
        """
        if least > reach or self.moves(size, centres, reach):
            return None
        if not self.moves(size, centres, least):
            return least
        low, high = least + 1, reach
        while low < high:
            middle = (low + high) // 2
            if self.moves(size, centres, middle):
                low = middle + 1
            else:
                high = middle
        return low

    def moves(self, size, centres, radius):
        """Whether replacing all that is farther than ``radius`` changes any centre."""
        with torch.no_grad():
            for chunk in self._chunks(centres, size):
                first, second = self.inputs(len(chunk), size), self.inputs(len(chunk), size)
                far = torch.stack([_distance(size, c) > radius for c in chunk])
                mixed = []
                for x, other, is_mask in zip(first, second, self.masks):
                    if _is_spatial(x, size):
                        mask = far.reshape(len(chunk), *[1] * (x.dim() - 3), size, size)
                        x = torch.where(mask, other if is_mask else 3.0 * other + 1.0, x)
                    mixed.append(x)
                for a, b in zip(self.run(first), self.run(mixed)):
                    scale = float(a.abs().max()) + 1e-30
                    for i, c in enumerate(chunk):
                        gap = float((a[i, ..., c, c] - b[i, ..., c, c]).abs().max())
                        if not gap <= self.tolerance * 1e-3 * scale:  # NaN moves too
                            return True
        return False

    def shift_errors(self, size, radius, strides):
        """{shift: largest |f(shift x) - shift f(x)| / largest |f|}, on a central square.

        The two inputs agree up to the shift within ``radius`` of that square and are unrelated
        farther away, with another mean and spread. Where the radius is not known (all matters) they
        agree everywhere but in a frame of an eighth of the size.
        """
        errors = {}
        half = size // 2
        with torch.no_grad():
            for stride in strides:
                # A few pixels more than measured: a radius from samples is a lower bound.
                room = half - (half // 2 if radius is None else radius + 4) - stride
                if room < 1:
                    continue
                # Half of the room for the square that is compared, half for what differs.
                inner = max(1, room // 2)
                agree = half - stride - (room - inner)
                low, high = half - inner, half + inner
                keep = slice(half - agree, half + agree)
                moved = slice(half - agree + stride, half + agree + stride)
                first, second = self.inputs(1, size), self.inputs(1, size)
                other = []
                for x, y, is_mask in zip(first, second, self.masks):
                    if _is_spatial(x, size):
                        y = y.clone() if is_mask else 3.0 * y + 1.0
                        y[..., moved, moved] = x[..., keep, keep]
                    else:
                        y = x
                    other.append(y)
                worst = 0.0
                for a, b in zip(self.run(first), self.run(other)):
                    a = a[..., low:high, low:high]
                    b = b[..., low + stride : high + stride, low + stride : high + stride]
                    gap = float((a - b).abs().max()) / (float(a.abs().max()) + 1e-30)
                    worst = max(worst, gap if math.isfinite(gap) else float("inf"))
                errors[stride] = worst
        return errors


def _is_spatial(x, size):
    return x.dim() >= 3 and list(x.shape[-2:]) == [size, size]


def _distance(size, centre):
    line = (torch.arange(size) - centre).abs()
    return torch.maximum(line[:, None], line[None, :])


def _copy(model):
    if isinstance(model, torch.jit.ScriptModule):
        buffer = io.BytesIO()
        torch.jit.save(model, buffer)
        buffer.seek(0)
        return torch.jit.load(buffer, map_location="cpu")
    return copy.deepcopy(model).cpu()
