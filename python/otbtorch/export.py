"""Export of a network to TorchScript with its contract, checked before anything is written."""

import copy
import io
import math
import os
import sys
import types
import warnings
from dataclasses import dataclass, field
from typing import List, Optional

import torch

from . import contract as contracts
from .contract import Violation, pointer

# What the oldest supported LibTorch (1.13) cannot load, and what to do instead.
FORBIDDEN_OPERATORS = {
    "aten::scaled_dot_product_attention": (
        "LibTorch 1.13 cannot load it: write the attention out as "
        "softmax(q @ k.transpose(-2, -1) / sqrt(d)) @ v, or switch the fused attention off in the "
        "library (timm: timm.layers.set_fused_attn(False))"
    )
}


class ExportError(Exception):
    """The network was not exported; ``problems`` is the list of all that is wrong."""

    def __init__(self, problems):
        self.problems = [str(p) for p in problems]
        lines = "".join(f"\n  - {p}" for p in self.problems)
        super().__init__(f"not exported, {len(self.problems)} problem(s):{lines}")


@dataclass
class ExportReport:
    """What ``export`` did.

    ``method`` is "script" or "trace"; ``scripting_error`` says why scripting failed in the second
    case. ``max_difference`` is the largest difference from the eager network over all checks, in
    the units of the outputs, ``frozen_difference`` that of the frozen network. ``sizes`` (of
    patches or windows), ``batches`` and ``steps`` (of series, where they are free) are those that
    were checked.
    """

    path: str
    method: str
    scripting_error: Optional[str] = None
    parameters: int = 0
    max_difference: float = 0.0
    frozen_difference: float = 0.0
    sizes: List[int] = field(default_factory=list)
    batches: List[int] = field(default_factory=list)
    steps: List[int] = field(default_factory=list)
    fixed_size: Optional[str] = None
    warnings: List[str] = field(default_factory=list)
    bytes: int = 0

    def __str__(self):
        lines = [
            f"{self.path}: {self.bytes} bytes, {self.parameters} parameters",
            f"  method          {self.method}",
            f"  sizes checked   {', '.join(map(str, self.sizes))}",
            f"  batches checked {', '.join(map(str, self.batches))}",
            f"  max |exported - eager| {self.max_difference:.3g}, "
            f"frozen {self.frozen_difference:.3g}",
        ]
        if self.steps:
            lines.insert(3, f"  steps checked   {', '.join(map(str, self.steps))}")
        if self.scripting_error:
            lines.append(f"  scripting failed: {self.scripting_error}")
        if self.fixed_size:
            lines.append(f"  fixed size: {self.fixed_size}")
        lines += [f"  warning: {w}" for w in self.warnings]
        return "\n".join(lines)


# ---------------------------------------------------------------------------------------------
# Running a network by its contract


def forward_inputs(contract):
    """The entries of ``mlm:input`` in the order of the arguments of ``forward``.

    Without the image of a latent model, which is no argument.
    """
    p = contract["properties"]
    entries = [e for e in p["mlm:input"] if e.get("otb:argument", True)]
    order = p.get("otb:method", {}).get("forward")
    if not order:
        return list(entries)
    by_name = {e["name"]: e for e in entries}
    return [by_name[name] for name in order]


def _of_series(contract):
    return contract["properties"].get("otb:task") == contracts.TASK_SERIES


def _of_likelihood(contract):
    return contract["properties"].get("otb:task") == contracts.TASK_LIKELIHOOD


def _scale(contract, entry=None):
    """What divides the side of a tensor (None: of the outputs): that of encode, of latents."""
    p = contract["properties"]
    if not _of_likelihood(contract) or not contracts.is_latent(p):
        return 1
    if entry is not None and entry["otb:role"] not in ("latent", "condition_latent"):
        return 1
    return p["otb:methods"]["encode"]["scale"]


def _dropped(contract, output):
    return _of_series(contract) and output["otb:role"] == "aux"


def by_pixel(contract):
    """Whether the network labels one pixel at a time (``unit`` of the tiling)."""
    return contract["properties"]["otb:tiling"].get("unit", "patch") == "pixel"


def side(contract):
    """Side of what the network sees: the patch, or the window around a pixel."""
    tiling = contract["properties"]["otb:tiling"]
    return tiling.get("window", 1) if by_pixel(contract) else tiling["patch"]


# Time steps of series that take any number of them: of the first trials, and of others.
STEPS = (12, 19)


def make_inputs(contract, batch, size, generator=None, dtype=torch.float32, steps=0, gaps=False):
    """Arguments for ``forward``: random, or zeros without a ``generator``.

    Free sizes become ``batch`` (first), ``size`` (height, width, and those that equal the patch),
    and ``steps`` (time; 12 where it is 0). Images, series and static bands are standard normal;
    dates, months, places and masks are such as a series may have; diffusion times, flags and
    masks of tokens (also without a ``generator``) such as those of the model.

    Args:
        gaps: whether series also have, from the second sample of the batch on, padded steps
            (where they may be padded) and, in the last, no image at all of an optional sensor.
    """
    entries = forward_inputs(contract)
    patch, steps = side(contract), steps or STEPS[0]
    shapes = []
    for entry in entries:
        spec, shape, scale = entry["input"], [], _scale(contract, entry)
        for axis, (n, dim) in enumerate(zip(spec["shape"], spec["dim_order"])):
            if axis == 0:
                n = batch
            elif dim in ("height", "width") and n in (-1, patch // scale):
                n = size // scale
            elif dim == "time" and n == -1:
                n = steps
            shape.append(6 if n == -1 else int(n))
        shapes.append(shape)
    if _of_likelihood(contract):
        p, drawn = contract["properties"], []
        for entry, shape in zip(entries, shapes):
            kind = _TYPES.get(entry["input"]["data_type"], dtype)
            drawn.append(_likelihood_input(p, entry["otb:role"], shape, generator).to(kind))
        return tuple(drawn)
    if not _of_series(contract):
        if generator is None:
            return tuple(torch.zeros(shape, dtype=dtype) for shape in shapes)
        return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes)
    kinds = {**_TYPES, "float32": dtype}
    types = [kinds[e["input"]["data_type"]] for e in entries]
    if generator is None:
        return tuple(torch.zeros(shape, dtype=t) for shape, t in zip(shapes, types))
    sampler = _SeriesSampler(contract, entries, shapes, generator, gaps)
    return tuple(sampler.draw(k).to(t) for k, t in enumerate(types))


_TYPES = {"int64": torch.int64, "uint8": torch.uint8, "bool": torch.bool}


def _likelihood_input(p, role, shape, generator):
    """An input of change-likelihood in double precision; without a generator the plainest one."""

    def uniform(low, high, *sizes):
        share = torch.full(sizes, 0.5, dtype=torch.float64)
        if generator is not None:
            share = torch.rand(sizes, generator=generator, dtype=torch.float64)
        return low + (high - low) * share

    if role == "condition_flag":
        return (uniform(0, 2, *shape) >= 1).double()
    if role == "diffusion_time":
        return _times(p["otb:generative"], lambda low, high: uniform(low, high, *shape))
    if role == "token_mask":
        # Whole tokens: one of `groups` is visible.
        patch, groups = p["otb:masked"]["patch"], p["otb:masked"]["groups"]
        rows, columns = (-(-n // patch) for n in shape[-2:])
        hidden = uniform(0, groups, shape[0], 1, rows, columns) >= 1
        hidden = hidden.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
        return hidden[..., : shape[-2], : shape[-1]].double()
    if generator is None:
        return torch.zeros(shape, dtype=torch.float64)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _times(spec, uniform):
    """Diffusion times within what the network was trained for."""
    low, high = spec.get("logsnr_range", (-6.0, 8.0))
    if spec["time"] == "continuous01":
        return uniform(0.01, 0.99)
    if spec["time"] == "discrete_index":
        schedule = spec["schedule"] if isinstance(spec["schedule"], dict) else {}
        steps = len(schedule.get("alphas_cumprod", ())) or schedule.get("steps", 1000)
        return uniform(0, steps).floor().clamp(max=steps - 1)
    logsnr = uniform(low, high)
    return logsnr if spec["time"] == "logsnr" else torch.exp(-0.5 * logsnr)


class _SeriesSampler:
    """Random inputs of a series that agree with each other: padding is masked, and so on."""

    def __init__(self, contract, entries, shapes, generator, gaps):
        self.entries, self.shapes, self.generator = entries, shapes, generator
        self.series = [k for k, e in enumerate(entries) if e["otb:role"] == "sits"]
        sensors = contract["properties"].get("otb:sensors", [])
        self.optional = {k + 1 for k, s in enumerate(sensors) if s.get("optional")}
        self.gaps = gaps
        self.padded = {k: self._padding(k) for k in self.series}

    def draw(self, k):
        """Input ``k``, in double precision."""
        role = self.entries[k]["otb:role"]
        if role in ("sits", "static"):
            x = torch.randn(self.shapes[k], generator=self.generator, dtype=torch.float64)
            return self._pad(k, x) if role == "sits" else x
        return getattr(self, "_" + role)(k)

    def _of(self, k):
        name = self.entries[k].get("otb:of")
        found = [s for s in self.series if name in (None, self.entries[s]["name"])]
        return found[0]

    def _uniform(self, *shape):
        return torch.rand(shape, generator=self.generator, dtype=torch.float64)

    def _padding(self, k):
        """[batch, time]: the padded steps of series ``k``."""
        entry, shape = self.entries[k], self.shapes[k]
        temporal = entry["otb:temporal"]
        batch, steps = shape[0], shape[entry["input"]["dim_order"].index("time")]
        used = torch.full((batch, 1), steps)
        if self.gaps and temporal["policy"] == "max":
            used = 1 + (self._uniform(batch, 1) * steps).long().clamp(max=steps - 1)
            used[0] = steps
        index = torch.arange(steps)[None, :]
        if temporal.get("pad_side", "end") == "start":
            index = index.flip(1)
        return index >= used

    def _along(self, k, mask):
        """[batch, time] in the axes of input ``k``."""
        dims = self.entries[k]["input"]["dim_order"]
        sizes = {"batch": mask.shape[0], "time": mask.shape[1]}
        return mask.reshape([sizes.get(d, 1) for d in dims])

    def _absent(self, k):
        """Indices of the bands of series ``k`` that an optional sensor brings."""
        entry = self.entries[k]
        sensor, count = entry.get("otb:sensor", 1), len(entry["bands"])
        sensor = sensor if isinstance(sensor, list) else [sensor] * count
        names = [b["name"] if isinstance(b, dict) else b for b in entry["bands"]]
        of = {n: {s} for n, s in zip(names, sensor)}
        for band in entry["bands"]:
            if isinstance(band, dict) and "expression" in band:
                of[band["name"]] = set().union(*(of[n] for n in band["expression"]))
        return [i for i, n in enumerate(names) if of[n] & self.optional]

    def _pad(self, k, x):
        entry = self.entries[k]
        absent = self._absent(k) if self.gaps and len(x) > 1 else []
        if absent:
            x = x.movedim(entry["input"]["dim_order"].index("bands"), 1)
            x[-1, absent] = float(entry.get("otb:nodata_fill", 0))
            x = x.movedim(1, entry["input"]["dim_order"].index("bands"))
        value = float(entry["otb:temporal"].get("pad_value", 0))
        return x.masked_fill(self._along(k, self.padded[k]), value)

    def _dates(self, k):
        encoding = self.entries[k]["otb:encoding"]
        padded = self.padded[self._of(k)]
        batch, steps = padded.shape
        first = {"doy": 1, "days_since": int(1000 * self._uniform(1))}.get(encoding["kind"], 0)
        step = max(1, 360 // steps)
        dates = first + step * torch.arange(steps).expand(batch, steps).double()
        if encoding["kind"] == "doy":
            dates = (dates - 1) % 366 + 1
        if encoding["kind"] == "month_index":
            dates = (dates // 30) % 12
        if encoding["kind"] == "index":
            dates = torch.arange(steps).expand(batch, steps).double()
        return dates.masked_fill(padded, float(encoding.get("pad_value", 0)))

    def _valid(self, k):
        entry, of = self.entries[k], self._of(k)
        valid = self._uniform(*self.shapes[k]) < 0.8
        dims = entry["input"]["dim_order"]
        # One valid date for each pixel: others are no-data on the map.
        time = dims.index("time")
        first = (~self.padded[of]).long().argmax(1)
        for sample, step in enumerate(first):
            valid[sample].select(time - 1, int(step))[...] = True
        if "bands" in dims and self.gaps and len(valid) > 1:
            valid.movedim(dims.index("bands"), 1)[-1, self._absent(of)] = False
        valid &= ~self._along(k, self.padded[of])
        return (valid if entry["otb:polarity"] == "valid" else ~valid).double()

    def _month(self, k):
        return (12 * self._uniform(*self.shapes[k])).floor()

    def _latlon(self, k):
        return (2 * self._uniform(*self.shapes[k]) - 1) * torch.tensor([60.0, 180.0]).double()


def named_outputs(contract, returned):
    """What ``forward`` returned as a list of tensors in the order of ``mlm:output``.

    Raises:
        ValueError: the number, the names or the types are not as declared.
    """
    names = [o["name"] for o in contract["properties"]["mlm:output"]]
    if isinstance(returned, torch.Tensor):
        returned = [returned]
    elif isinstance(returned, dict):
        missing = [n for n in names if n not in returned]
        unknown = [str(n) for n in returned if n not in names]
        if missing or unknown:
            text = f"the network returns {{{', '.join(map(str, returned))}}}"
            raise ValueError(f"{text}, the contract declares {{{', '.join(names)}}}")
        returned = [returned[n] for n in names]
    elif not isinstance(returned, (tuple, list)):
        raise ValueError(f"the network returns a {type(returned).__name__}, not tensors")
    if len(returned) != len(names):
        raise ValueError(
            f"the network returns {len(returned)} tensor(s), the contract declares {len(names)} "
            f"({', '.join(names)})"
        )
    for name, tensor in zip(names, returned):
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"output {name} is a {type(tensor).__name__}, not a tensor")
    return list(returned)


def dry_run(module, contract, batch=2, size=None):
    """Runs the network on zeros and compares it with a *valid* contract.

    Returns the list of violations: number, types, channels and sizes of the outputs, and the same
    of the declared methods. ``size`` is the patch or the window where it is not given.
    """
    size = size or side(contract)
    inputs = make_inputs(contract, batch, size)
    try:
        with torch.no_grad():
            returned = module(*inputs)
    except Exception as error:  # whatever a user's network raises is a violation, not a crash
        shapes = ", ".join(str(list(x.shape)) for x in inputs)
        return [
            Violation(
                "/properties/mlm:input", f"the network fails on inputs {shapes}: {reason_of(error)}"
            )
        ]
    try:
        outputs = named_outputs(contract, returned)
    except ValueError as error:
        return [Violation("/properties/mlm:output", str(error))]
    return _check_outputs(contract, outputs, batch, size) + _check_methods(module, contract, batch)


def _check_methods(module, contract, batch):
    """Whether a module has the methods that its contract declares, and what they give.

    A method takes what it takes in ``doc/model-contract.md``; ``div`` is looked for only.
    """
    p, found = contract["properties"], []
    methods = p.get("otb:methods", {}) if _of_likelihood(contract) else {}
    images = [e for e in p["mlm:input"] if e["otb:role"] == "image"]
    for name, spec in methods.items():
        where = pointer("properties", "otb:methods", name)
        method = getattr(module, name, None)
        if isinstance(module, torch.jit.ScriptModule) and not module._c._has_method(name):
            method = None  # one of Python only, which is not saved
        if not callable(method):
            text = f"the module has no method {name}: decorate it with @torch.jit.export"
            found.append(Violation(where, text))
        if not callable(method) or name == "div" or not images:
            continue
        shape = [batch, len(images[0]["bands"]), side(contract), side(contract)]
        if name == "decode":
            encode = methods["encode"]
            shape[1:] = [encode["channels"]] + [side(contract) // encode["scale"]] * 2
        try:
            with torch.no_grad():
                result = method(torch.zeros(shape))
        except Exception as error:
            found.append(Violation(where, f"fails on an input {shape}: {reason_of(error)}"))
            continue
        wanted = [batch, spec["channels"]] + [side(contract) // spec["scale"]] * 2
        got = list(result.shape) if isinstance(result, torch.Tensor) else type(result).__name__
        if got != wanted:
            found.append(Violation(where, f"{name} gives {got}, {wanted} is declared"))
    return found


def _check_outputs(contract, outputs, batch, size):
    found = []
    if _of_series(contract):
        return _check_series_outputs(contract, outputs, batch, size)
    for i, (entry, tensor) in enumerate(zip(contract["properties"]["mlm:output"], outputs)):
        where = pointer("properties", "mlm:output", i, "result")
        name, shape = entry["name"], entry.get("result", {}).get("shape")
        if tensor.dtype != torch.float32:
            found.append(
                Violation(where + "/data_type", f"{name} comes out as {tensor.dtype}, not float32")
            )
        got, inner = list(tensor.shape), size // _scale(contract)
        wanted = [batch, shape[1] if shape and len(shape) == 4 else -1, inner, inner]
        if shape and len(shape) != 4:
            continue
        if len(got) != 4 or any(w not in (-1, g) for w, g in zip(wanted, got)):
            found.append(
                Violation(where + "/shape", f"{name} comes out as {got}, {wanted} is declared")
            )
    return found


def _check_series_outputs(contract, outputs, batch, size):
    found = []
    for i, (entry, tensor) in enumerate(zip(contract["properties"]["mlm:output"], outputs)):
        if entry["otb:role"] == "aux":
            continue  # may be anything: it is dropped
        where = pointer("properties", "mlm:output", i, "result")
        name, got = entry["name"], list(tensor.shape)
        if tensor.dtype != torch.float32:
            found.append(
                Violation(where + "/data_type", f"{name} comes out as {tensor.dtype}, not float32")
            )
        wanted = [batch, entry["result"]["shape"][1]] + ([] if by_pixel(contract) else [size] * 2)
        if got != wanted:
            found.append(
                Violation(where + "/shape", f"{name} comes out as {got}, {wanted} is declared")
            )
    return found


# ---------------------------------------------------------------------------------------------
# Checks


def operators(graph):
    """The kinds of all the nodes of a graph, nested blocks included."""
    kinds = set()

    def walk(block):
        for node in block.nodes():
            kinds.add(node.kind())
            for inner in node.blocks():
                walk(inner)

    walk(graph)
    return kinds


def forbidden_operators(graph):
    """Messages for the operators of the graph that the oldest supported LibTorch lacks."""
    return [
        f"the graph uses {name}: {FORBIDDEN_OPERATORS[name]}"
        for name in sorted(operators(graph) & set(FORBIDDEN_OPERATORS))
    ]


def _baked_devices(graph):
    return sorted(
        {
            value
            for value in ("cpu", "cuda", "cuda:0")
            if f'Device = prim::Constant[value="{value}"]' in str(graph)
        }
    )


def reason_of(error):
    """The last telling line of an exception's text (TorchScript's are pages long)."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    for line in reversed(lines):
        if line.startswith(("RuntimeError:", "AssertionError:", "ValueError:")):
            return line
    return lines[0]


def _difference(ours, reference):
    """Largest absolute difference, NaN equal to NaN; infinite where shapes or NaNs differ."""
    if ours.shape != reference.shape:
        return float("inf")
    if ours.numel() == 0:
        return 0.0
    if not torch.equal(torch.isfinite(ours), torch.isfinite(reference)):
        return float("inf")
    gap = (ours - reference).abs()
    return float(gap[torch.isfinite(gap)].max()) if torch.isfinite(gap).any() else 0.0


def _compile(module, example, report, problems):
    """Scripts the network, else traces it; None where both fail."""
    if isinstance(module, torch.jit.ScriptModule):
        report.method = "script"
        return module
    try:
        report.method = "script"
        return torch.jit.script(module)
    except Exception as error:  # scripting fails in many ways, all of them mean "trace"
        report.scripting_error = reason_of(error)
    try:
        report.method = "trace"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            strict = not isinstance(_eager(module, example), dict)
            with torch.no_grad():
                traced = torch.jit.trace(module, example, check_trace=False, strict=strict)
        for warning in caught:
            if issubclass(warning.category, torch.jit.TracerWarning):
                report.warnings.append("trace: " + str(warning.message).splitlines()[0])
        return traced
    except Exception as error:
        problems.append(
            f"neither scripted ({report.scripting_error}) nor traced ({reason_of(error)})"
        )
    return None


def _eager(module, inputs):
    with torch.no_grad():
        return module(*inputs)


def _sizes(contract):
    """The patch, then another size that the declared stride (tokens, latents) allows."""
    p = contract["properties"]
    patch, multiple = p["otb:tiling"]["patch"], p["otb:tiling"].get("multiple", 1)
    if _of_likelihood(contract):
        multiple = math.lcm(multiple, p.get("otb:masked", {}).get("patch", 1), _scale(contract))
    step = multiple * max(1, -(-(patch // 4) // multiple))
    return patch, patch + step


def _trials(contract):
    """What is tried, as (size, batch, steps): steps are those of series that take any number."""
    free = any(
        e.get("otb:temporal", {}).get("policy") == "any"
        for e in contract["properties"]["mlm:input"]
    )
    steps = STEPS if _of_series(contract) and free else (0, 0)
    if by_pixel(contract):
        window = side(contract)
        return [(window, 2, steps[0]), (window, 1, steps[1]), (window, 5, steps[1])]
    patch, other = _sizes(contract)
    trials = [(patch, 2, steps[0]), (patch, 1, steps[1]), (patch, 5, steps[0])]
    return trials + [(other, 1, steps[1]), (other, 2, steps[0])]


def _compare(module, scripted, frozen, contract, atol, generator, report, problems):
    """Scripted and frozen against eager over batches and sizes."""
    baked = (
        "a value of the example was baked into the trace (sizes taken with x.shape or len() "
        "and used as Python numbers); make the network scriptable, or keep such sizes as tensors"
        if report.method == "trace"
        else "the scripted network does not follow the eager one"
    )
    patch = side(contract)
    for size, batch, steps in _trials(contract):
        where = f"batch {batch}, {size} x {size}" + (f", {steps} steps" if steps else "")
        inputs = make_inputs(contract, batch, size, generator, steps=steps, gaps=True)
        try:
            reference = named_outputs(contract, _eager(module, inputs))
        except Exception as error:
            if size != patch:
                report.fixed_size = f"the network refuses {size} x {size}: {reason_of(error)}"
                return
            problems.append(f"{where}: the eager network fails: {reason_of(error)}")
            continue
        found = _check_outputs(contract, reference, batch, size)
        if found and size != patch:
            report.fixed_size = f"at {size} x {size}, {found[0].message}"
            return
        for tensor, entry in zip(reference, contract["properties"]["mlm:output"]):
            if not torch.isfinite(tensor).all() and not _dropped(contract, entry):
                told = " (or padded steps, or masks of all)" if _of_series(contract) else ""
                problems.append(
                    f"{where}: {entry['name']} is not finite on standard normal inputs{told}"
                )
        magnitude = max(
            (float(t[torch.isfinite(t)].abs().max()) for t in reference if torch.isfinite(t).any()),
            default=0.0,
        )
        for label, candidate in (("", scripted), ("frozen: ", frozen)):
            if candidate is None:
                continue
            try:
                ours = named_outputs(contract, _eager(candidate, inputs))
                gap = max(_difference(a, b) for a, b in zip(ours, reference))
            except Exception as error:
                problems.append(f"{label}{where}: {reason_of(error)}: {baked}")
                break
            # Freezing folds batch norm into the convolutions, which rounds differently.
            limit = atol * (1.0 + magnitude) * (10.0 if candidate is frozen else 1.0)
            if not gap <= limit:
                problems.append(
                    f"{label}{where}: differs from the eager network by {gap:.3g} "
                    f"(more than {limit:.3g}): {baked}"
                )
                break
            if candidate is frozen:
                report.frozen_difference = max(report.frozen_difference, gap)
            else:
                report.max_difference = max(report.max_difference, gap)
        report.sizes = sorted(set(report.sizes) | {size})
        report.batches = sorted(set(report.batches) | {batch})
        report.steps = sorted(set(report.steps) | ({steps} if steps else set()))


def _complete(contract, module, path, problems):
    """A copy of the contract with what can be filled in: versions, result shapes, file name."""
    contract = copy.deepcopy(contract)
    p = contract.get("properties") if isinstance(contract, dict) else None
    if not isinstance(p, dict):
        return contract
    p.setdefault("mlm:framework", "PyTorch")
    if not p.get("mlm:framework_version"):
        p["mlm:framework_version"] = torch.__version__.split("+")[0]
    assets = contract.get("assets")
    if isinstance(assets, dict) and isinstance(assets.get("model"), dict):
        assets["model"]["href"] = os.path.basename(path)
    entries = p.get("mlm:output")
    entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    incomplete = [
        e for e in entries if not (isinstance(e.get("result"), dict) and e["result"].get("shape"))
    ]
    if not incomplete:
        return contract
    try:
        outputs = named_outputs(contract, _eager(module, make_inputs(contract, 1, side(contract))))
    except Exception as error:
        problems.append(f"result shapes could not be filled in: {reason_of(error)}")
        return contract
    for entry, tensor in zip(entries, outputs):
        if any(entry is e for e in incomplete):
            result = entry["result"] if isinstance(entry.get("result"), dict) else {}
            result["shape"] = [-1] + list(tensor.shape[1:])
            dims = contracts.RESULT_DIMS[: tensor.dim() if _of_series(contract) else None]
            dims = dims + [f"axis_{k}" for k in range(len(dims), tensor.dim())]
            result.setdefault("dim_order", dims)
            result.setdefault("data_type", "float32")
            entry["result"] = result
    return contract


def _check_parameters(module, problems):
    for kind, named in (("parameter", module.named_parameters), ("buffer", module.named_buffers)):
        for name, tensor in named():
            if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                problems.append(f"{kind} {name} is not finite")


def check(module, contract, path="", example=None, atol=1e-5):
    """All of ``export`` but the writing.

    Returns ``(scripted, completed contract, report)``. Raises ExportError.
    """
    problems = []
    report = ExportReport(path=os.fspath(path), method="none")
    generator = torch.Generator().manual_seed(0)
    module.eval()
    report.parameters = sum(p.numel() for p in module.parameters())
    _check_parameters(module, problems)

    contract = _complete(contract, module, os.fspath(path), problems)
    violations = contracts.validate(contract)
    problems += violations
    if violations:
        raise ExportError(problems)  # the network cannot be called without a valid contract

    mismatches = dry_run(module, contract)
    problems += mismatches
    if example is None:
        example = make_inputs(contract, 2, side(contract), generator)
    elif isinstance(example, torch.Tensor):
        example = (example,)
    # Where eager cannot be run there is nothing to trace nor to compare with.
    if mismatches and mismatches[0].path == "/properties/mlm:input":
        raise ExportError(problems)
    scripted = _compile(module, tuple(example), report, problems)
    if scripted is None:
        raise ExportError(problems)
    scripted.eval()
    graph = scripted.inlined_graph
    problems += forbidden_operators(graph)
    for device in _baked_devices(graph):
        report.warnings.append(
            f'the device "{device}" is a constant of the graph: the network may fail on another'
        )
    # What was compiled must have them too: scripting leaves out what is not marked.
    if not mismatches:
        problems += _check_methods(scripted, contract, 2)
    frozen = None
    try:
        frozen = torch.jit.freeze(scripted)
    except Exception as error:
        problems.append(f"torch.jit.freeze fails: {reason_of(error)}")
    if not mismatches:
        _compare(module, scripted, frozen, contract, atol, generator, report, problems)
    if problems:
        raise ExportError(problems)
    return scripted, contract, report


def export(module, contract, path, example=None, atol=1e-5):
    """Writes a network as TorchScript with its contract in it, if and only if all is right.

    The network is put in ``eval`` and left there. It is scripted, or traced where scripting fails;
    the result must agree with it on random inputs, at the contract's patch and at another size (of
    series of any length: at two lengths), for batches of 1, 2 and 5, frozen and not; its
    parameters must be finite; its outputs must be those that the contract declares; the contract
    must be valid. Missing result shapes and framework version are filled in.

    Args:
        module: a network on the CPU in float32 that returns a tensor, a tuple or list of tensors,
            or a dictionary of tensors keyed by the names of the outputs.
        contract: a dict (see ``change_detection``, ``time_series``); it is not modified.
        path: the file to write, replaced atomically.
        example: arguments of ``forward`` for tracing; random ones where not given.
        atol: largest difference allowed between the eager and the exported network, relative to
            1 + the largest absolute output; ten times that for the frozen network.

    Raises:
        ExportError: with all the problems found; nothing was written.
        OSError: the file cannot be written.
    """
    path = os.fspath(path)
    scripted, contract, report = check(module, contract, path, example, atol)
    report.bytes = write(scripted, contract, path)
    return report


def write(scripted, contract, path):
    """Saves a scripted network with a contract (None: without), atomically and *without checks*.

    Returns the number of bytes.
    """
    buffer = io.BytesIO()
    extra = {} if contract is None else {"mlm.json": contracts.to_text(contract)}
    torch.jit.save(scripted, buffer, _extra_files=extra)
    path = os.fspath(path)
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as stream:
            stream.write(buffer.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise
    return buffer.getbuffer().nbytes


class _CallableModule(types.ModuleType):
    """Lets ``otbtorch.export(...)`` be the function although it is the name of this module too."""

    def __call__(self, module, contract, path, example=None, atol=1e-5):
        return export(module, contract, path, example=example, atol=atol)


sys.modules[__name__].__class__ = _CallableModule
