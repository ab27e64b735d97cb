"""Export of a network to TorchScript with its contract, checked before anything is written."""

import copy
import io
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
    the units of the outputs, ``frozen_difference`` that of the frozen network. ``sizes``
    and ``batches`` are those that were checked.
    """

    path: str
    method: str
    scripting_error: Optional[str] = None
    parameters: int = 0
    max_difference: float = 0.0
    frozen_difference: float = 0.0
    sizes: List[int] = field(default_factory=list)
    batches: List[int] = field(default_factory=list)
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
        if self.scripting_error:
            lines.append(f"  scripting failed: {self.scripting_error}")
        if self.fixed_size:
            lines.append(f"  fixed size: {self.fixed_size}")
        lines += [f"  warning: {w}" for w in self.warnings]
        return "\n".join(lines)


# ---------------------------------------------------------------------------------------------
# Running a network by its contract


def forward_inputs(contract):
    """The entries of ``mlm:input`` in the order of the arguments of ``forward``."""
    p = contract["properties"]
    entries = p["mlm:input"]
    order = p.get("otb:method", {}).get("forward")
    if not order:
        return list(entries)
    by_name = {e["name"]: e for e in entries}
    return [by_name[name] for name in order]


def make_inputs(contract, batch, size, generator=None, dtype=torch.float32):
    """Arguments for ``forward``: standard normal, or zeros without a ``generator``.

    Free sizes become ``batch`` (first), ``size`` (height, width, and those that equal the patch),
    and 6 for any other (dates of a series).
    """
    arrays = []
    patch = contract["properties"]["otb:tiling"]["patch"]
    for entry in forward_inputs(contract):
        spec, shape = entry["input"], []
        for axis, (n, dim) in enumerate(zip(spec["shape"], spec["dim_order"])):
            if axis == 0:
                n = batch
            elif dim in ("height", "width") and n in (-1, patch):
                n = size
            shape.append(6 if n == -1 else int(n))
        if generator is None:
            arrays.append(torch.zeros(shape, dtype=dtype))
        else:
            arrays.append(torch.randn(shape, generator=generator, dtype=dtype))
    return tuple(arrays)


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

    Returns the list of violations: number, types, channels and sizes of the outputs. ``size`` is
    the patch where it is not given.
    """
    size = size or contract["properties"]["otb:tiling"]["patch"]
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
    return _check_outputs(contract, outputs, batch, size)


def _check_outputs(contract, outputs, batch, size):
    found = []
    for i, (entry, tensor) in enumerate(zip(contract["properties"]["mlm:output"], outputs)):
        where = pointer("properties", "mlm:output", i, "result")
        name, shape = entry["name"], entry.get("result", {}).get("shape")
        if tensor.dtype != torch.float32:
            found.append(
                Violation(where + "/data_type", f"{name} comes out as {tensor.dtype}, not float32")
            )
        got = list(tensor.shape)
        wanted = [batch, shape[1] if shape and len(shape) == 4 else -1, size, size]
        if shape and len(shape) != 4:
            continue
        if len(got) != 4 or any(w not in (-1, g) for w, g in zip(wanted, got)):
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


def _sizes(tiling):
    """The patch, then another size that the declared stride allows."""
    patch, multiple = tiling["patch"], tiling.get("multiple", 1)
    step = multiple * max(1, -(-(patch // 4) // multiple))
    return patch, patch + step


def _compare(module, scripted, frozen, contract, atol, generator, report, problems):
    """Scripted and frozen against eager over batches and sizes."""
    baked = (
        "a value of the example was baked into the trace (sizes taken with x.shape or len() "
        "and used as Python numbers); make the network scriptable, or keep such sizes as tensors"
        if report.method == "trace"
        else "the scripted network does not follow the eager one"
    )
    patch, other = _sizes(contract["properties"]["otb:tiling"])
    for size, batch in ((patch, 2), (patch, 1), (patch, 5), (other, 1), (other, 2)):
        where = f"batch {batch}, {size} x {size}"
        inputs = make_inputs(contract, batch, size, generator)
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
            if not torch.isfinite(tensor).all():
                problems.append(f"{where}: {entry['name']} is not finite on standard normal inputs")
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
        patch = p["otb:tiling"]["patch"]
        outputs = named_outputs(contract, _eager(module, make_inputs(contract, 1, patch)))
    except Exception as error:
        problems.append(f"result shapes could not be filled in: {reason_of(error)}")
        return contract
    for entry, tensor in zip(entries, outputs):
        if any(entry is e for e in incomplete):
            result = entry["result"] if isinstance(entry.get("result"), dict) else {}
            result["shape"] = [-1] + list(tensor.shape[1:])
            result.setdefault("dim_order", list(contracts.RESULT_DIMS))
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

    patch = contract["properties"]["otb:tiling"]["patch"]
    mismatches = dry_run(module, contract)
    problems += mismatches
    if example is None:
        example = make_inputs(contract, 2, patch, generator)
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
    the result must agree with it on random inputs, at the contract's patch and at another size, for
    batches of 1, 2 and 5, frozen and not; its parameters must be finite; its outputs must be those
    that the contract declares; the contract must be valid. Missing result shapes and framework
    version are filled in.

    Args:
        module: a network on the CPU in float32 that returns a tensor, a tuple or list of tensors,
            or a dictionary of tensors keyed by the names of the outputs.
        contract: a dict (see ``change_detection``); it is not modified.
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
