"""The model contract: build, read and validate (see ``doc/model-contract.md``).

Nothing here imports torch. A contract is a plain ``dict``, as ``json.loads`` gives it.
"""

import copy
import functools
import json
import math
import os
import re
import struct
import zipfile
import zlib
from collections import namedtuple

VERSION = "1.0.0"
MLM_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"
IMAGE_DIMS = ["batch", "bands", "height", "width"]
RESULT_DIMS = ["batch", "channel", "height", "width"]
CHANGE_ROLES = ("change_logits", "change_probability", "transition_logits")
CLASS_ROLES = ("sem1_logits", "sem2_logits", "transition_logits", "logits", "probabilities")

_EXTRA = re.compile(r"^[^/]+/extra/mlm\.json$")


class ContractError(Exception):
    """The contract cannot be read (missing, not an archive, truncated, invalid JSON)."""


class Violation(namedtuple("Violation", "path message")):
    """One broken rule: ``path`` is a JSON pointer into the contract ("" is the whole)."""

    __slots__ = ()

    def __str__(self):
        return f"{self.path or '/'}: {self.message}"


Contract = namedtuple("Contract", "data source")
Contract.__doc__ = "A contract (``data``, a dict) and where it was read from (``source``, a text)."


# ---------------------------------------------------------------------------------------------
# Building


def z_score(mean, stddev):
    """(x - mean) / stddev: two numbers, or two sequences of one value a band."""
    return _per_band("z-score", mean=mean, stddev=stddev)


def min_max(minimum, maximum):
    """(x - minimum) / (maximum - minimum): two numbers, or two sequences of one value a band."""
    return _per_band("min-max", minimum=minimum, maximum=maximum)


def _per_band(kind, **fields):
    columns = [v if hasattr(v, "__len__") else [v] for v in fields.values()]
    count = max(len(c) for c in columns)
    columns = [list(c) * count if len(c) == 1 else list(c) for c in columns]
    if any(len(c) != count for c in columns):
        raise ValueError(f"{kind}: " + ", ".join(fields) + " differ in length")
    return [dict(type=kind, **dict(zip(fields, map(float, row)))) for row in zip(*columns)]


def output(name, role, channels=None, classes=None):
    """One entry of ``mlm:output`` without its shape, which ``change_detection`` fills.

    ``classes`` is a list of ``(value, name)``, ``(value, name, "RRGGBB")`` or of dicts.
    ``channels`` follows from the role and the classes where it is not given.
    """
    entry = {"name": name, "otb:role": role}
    if classes is not None:
        entry["classification:classes"] = [
            dict(c) if isinstance(c, dict) else dict(zip(("value", "name", "color_hint"), c))
            for c in classes
        ]
    if channels is None:
        count = len(classes or [])
        if role == "transition_logits":
            channels = 1 + count * count
        elif role in CLASS_ROLES:
            channels = count
        else:
            channels = 1
    entry["channels"] = channels
    return entry


def change_detection(
    id,
    bands,
    scaling,
    *,
    patch,
    halo,
    license,
    training_data,
    outputs=None,
    multiple=1,
    blend="crop",
    tta=(),
    temperature=1.0,
    threshold=0.5,
    scaling2=None,
    gsd_m=None,
    nodata=None,
    nodata_rule="all",
    nodata_fill=0.0,
    architecture="unspecified",
    recipe=None,
    authors=None,
    citation=None,
):
    """The contract of a two-date change detector ``forward(x1, x2)``, as a dict.

    Args:
        id: short name of the model.
        bands: names of the bands, in the order of the channels, the same at both dates.
        scaling: ``value_scaling`` of date 1 (see ``z_score``, ``min_max``): a list of one object,
            or of one a band; ``None`` says that the network takes raw values.
        scaling2: that of date 2 where it differs.
        outputs: a list of ``output(...)``; one channel of change logits where not given.
        patch, halo, multiple: pixels. ``probe-halo`` measures the last two.
        gsd_m: ground sampling distance of the training data, metres.
        nodata: value that stands for no-data in raw images that declare none.
        nodata_fill: what the network sees there, after scaling.

    The result is not validated here: ``validate`` reports every violation, ``export`` refuses.
    """
    if outputs is None:
        outputs = [
            output(
                "change",
                "change_logits",
                classes=[(0, "no-change", "000000"), (1, "change", "E03C31")],
            )
        ]
    bands = list(bands)

    def one_input(date, value_scaling):
        return {
            "name": f"x{date}",
            "bands": list(bands),
            "input": {
                "shape": [-1, len(bands), patch, patch],
                "dim_order": list(IMAGE_DIMS),
                "data_type": "float32",
            },
            "value_scaling": copy.deepcopy(value_scaling),
            "resize_type": None,
            "otb:role": "image",
            "otb:date": date,
            "otb:nodata": nodata,
            "otb:nodata_rule": nodata_rule,
            "otb:nodata_fill": nodata_fill,
        }

    def one_output(entry):
        entry = copy.deepcopy(entry)
        channels = entry.pop("channels", None)
        if "result" not in entry and channels is not None:
            entry["result"] = {
                "shape": [-1, channels, patch, patch],
                "dim_order": list(RESULT_DIMS),
                "data_type": "float32",
            }
        return {"tasks": ["semantic-segmentation"], **entry}

    provenance = {"license": license, "training_data": training_data}
    extra = dict(gsd_m=gsd_m, recipe=recipe, authors=authors, citation=citation)
    provenance.update({k: v for k, v in extra.items() if v is not None})
    return {
        "stac_version": "1.1.0",
        "stac_extensions": [MLM_SCHEMA],
        "type": "Feature",
        "id": id,
        "geometry": None,
        "properties": {
            "datetime": None,
            "start_datetime": "2015-01-01T00:00:00Z",
            "end_datetime": "9999-12-31T23:59:59Z",
            "mlm:name": id,
            "mlm:architecture": architecture,
            "mlm:tasks": ["semantic-segmentation"],
            "mlm:framework": "PyTorch",
            "mlm:accelerator": None,
            "mlm:input": [
                one_input(1, scaling),
                one_input(2, scaling if scaling2 is None else scaling2),
            ],
            "mlm:output": [one_output(o) for o in outputs],
            "otb:version": VERSION,
            "otb:task": "change-detection",
            "otb:method": {"forward": ["x1", "x2"]},
            "otb:tiling": {
                "patch": patch,
                "multiple": multiple,
                "halo": halo,
                "blend": blend,
                "tta": list(tta),
            },
            "otb:calibration": {"temperature": temperature, "threshold": threshold},
            "otb:provenance": provenance,
        },
        "links": [],
        "assets": {
            "model": {
                "href": f"{id}.pt",
                "type": "application/octet-stream; application=pytorch",
                "mlm:artifact_type": "torch.jit.save",
                "roles": ["mlm:model", "mlm:weights"],
                "bands": [{"name": b} for b in bands],
            }
        },
    }


# ---------------------------------------------------------------------------------------------
# Reading


def read(model_path, contract=None):
    """The contract of a model: ``contract`` if given, else the side-car, else the embedded one.

    The first one found is used whole. Weights are not loaded and torch is not imported.

    Returns:
        ``Contract(data, source)``; it is not validated.
    Raises:
        ContractError: nothing found, or what was found cannot be read. A side-car that exists but
            cannot be read is an error: the embedded contract does not silently replace it.
    """
    if contract is not None:
        return Contract(_read_json(contract), os.fspath(contract))
    model_path = os.fspath(model_path)
    stem = os.path.splitext(model_path)[0]
    for side_car in (model_path + ".mlm.json", stem + ".mlm.json"):
        if os.path.exists(side_car):
            return Contract(_read_json(side_car), side_car)
    data = _parse(_embedded(model_path), f"{model_path}: embedded contract")
    return Contract(data, f"{model_path} (embedded)")


def open_archive(model_path):
    """The TorchScript file as a ``zipfile.ZipFile``.

    Raises:
        ContractError: no such file, empty, not an archive, or a truncated one.
    """
    try:
        with open(model_path, "rb") as stream:
            head = stream.read(4)
    except OSError as error:
        raise ContractError(f"{model_path}: {error.strerror or error}") from error
    if not head:
        raise ContractError(f"{model_path}: the file is empty")
    if head != b"PK\x03\x04":
        raise ContractError(f"{model_path}: not a TorchScript archive (it is not a zip file)")
    try:
        return zipfile.ZipFile(model_path)
    except (zipfile.BadZipFile, OSError, struct.error, NotImplementedError) as error:
        raise ContractError(
            f"{model_path}: truncated or damaged: it begins as a zip archive but its directory "
            f"cannot be read ({error})"
        ) from error


def is_torchscript(archive):
    """Whether an open archive holds code (``torch.jit.save``) or weights only (``torch.save``)."""
    return any(re.match(r"^[^/]+/code/.*\.py$", n) for n in archive.namelist())


def _embedded(model_path):
    with open_archive(model_path) as archive:
        members = [n for n in archive.namelist() if _EXTRA.match(n)]
        if not members:
            if not is_torchscript(archive):
                raise ContractError(
                    f"{model_path}: not TorchScript: the archive holds no code (written by "
                    "torch.save, of a state dict perhaps); export the network with torch.jit.save"
                )
            raise ContractError(
                f"{model_path}: no contract: neither a side-car file {model_path}.mlm.json nor "
                "mlm.json inside the archive; give one with --contract or export again"
            )
        try:
            return archive.read(members[0])
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
            raise ContractError(f"{model_path}: damaged archive: {error}") from error


def _read_json(path):
    try:
        with open(path, "rb") as stream:
            return _parse(stream.read(), os.fspath(path))
    except OSError as error:
        raise ContractError(f"{os.fspath(path)}: {error.strerror or error}") from error


def _parse(raw, where):
    def refuse_constant(text):
        raise ValueError(f"{text} is not a JSON number")

    def refuse_duplicates(pairs):
        fields = dict(pairs)
        if len(fields) != len(pairs):
            names = [k for k, _ in pairs]
            twice = sorted({n for n in names if names.count(n) > 1})
            raise ValueError("field given twice: " + ", ".join(twice))
        return fields

    try:
        data = json.loads(
            raw.decode("utf-8-sig"),
            parse_constant=refuse_constant,
            object_pairs_hook=refuse_duplicates,
        )
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        raise ContractError(f"{where}: invalid JSON: {error}") from error
    if not isinstance(data, dict):
        raise ContractError(f"{where}: a JSON object is expected, not {_kind(data)}")
    return data


def to_text(contract):
    """A contract as JSON text (UTF-8 kept, indented). ValueError on NaN or infinity."""
    return json.dumps(contract, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


# ---------------------------------------------------------------------------------------------
# Validating


def schema():
    """The JSON Schema (draft 7) of the contract, as a dict."""
    return copy.deepcopy(_schema())


@functools.lru_cache(maxsize=None)
def _schema():
    here = os.path.dirname(os.path.abspath(__file__))
    name = "model-contract.schema.json"
    # Beside the package once installed; in doc/ in the source tree.
    for path in (os.path.join(here, name), os.path.join(here, "..", "..", "doc", name)):
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                return json.load(stream)
    raise ContractError(f"{name} was not found: the installation is incomplete")


def validate(contract):
    """All the violations of the contract's rules, sorted by path; an empty list if there is none.

    The schema first, then the rules that tie fields together. These look only at fields that have
    the right type, so that one mistake is reported once.
    """
    if not isinstance(contract, dict):
        return [Violation("", f"a JSON object is expected, not {_kind(contract)}")]
    found = _schema_violations(contract)
    _check_finite(contract, "", found)
    properties = contract.get("properties")
    if isinstance(properties, dict):
        _check_properties(properties, found)
    unique = dict.fromkeys(found)
    return sorted(unique, key=lambda v: [_natural(p) for p in v.path.split("/")])


def pointer(*parts):
    """A JSON pointer (RFC 6901) from the names and indices on the way."""
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1") for p in parts)


def _natural(part):
    return (0, int(part), "") if part.isdigit() else (1, 0, part)


def _kind(value):
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    return {str: "a string", list: "a list", dict: "an object"}.get(type(value), str(type(value)))


def _short(value):
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _schema_violations(contract):
    import jsonschema

    found = []
    for error in jsonschema.Draft7Validator(_schema()).iter_errors(contract):
        _translate(error, found)
    return found


def _translate(error, found):
    """jsonschema's errors in the contract's own words, one a field."""
    path = list(error.absolute_path)
    rule = error.validator
    where = pointer(*path)
    if rule == "required":
        # jsonschema reports each missing field on its own, at the object that lacks it.
        for name in error.validator_value:
            if name not in error.instance and error.message.startswith(repr(name)):
                found.append(Violation(pointer(*path, name), "required, and missing"))
        return
    if rule is None and error.schema is False:
        found.append(Violation(where, "unknown field"))
        return
    if rule == "additionalProperties":
        for name in error.instance:
            if name not in error.schema.get("properties", {}):
                found.append(Violation(pointer(*path, name), "unknown field"))
        return
    value = _short(error.instance)
    if rule == "enum":
        message = f"{value} is not one of " + ", ".join(map(_short, error.validator_value))
        if path[-3:-2] == ["value_scaling"] and error.instance == "processing":
            message = "processing expressions cannot be run here; use the other scalings"
    elif rule == "const":
        message = f"{value} is given, {_short(error.validator_value)} is expected"
    elif rule == "type":
        wanted = error.validator_value
        wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
        message = f"{_kind(error.instance)} is given, {wanted} is expected"
    elif rule == "pattern" and path[-1:] == ["otb:version"]:
        if re.match(r"^\d+\.\d+\.\d+", error.instance):
            message = f"version {value} is not understood: major version 1 is expected"
        else:
            message = f"{value} is not a version such as {VERSION}"
    elif rule == "pattern":
        message = f"{value} does not have the form {error.validator_value}"
    elif rule in ("minItems", "minLength"):
        message = "empty"
    elif rule == "uniqueItems":
        message = f"{value} has repeated entries"
    elif rule == "minimum":
        message = f"{value} is below {error.validator_value}"
    elif rule == "exclusiveMinimum":
        message = f"{value} is not above {error.validator_value}"
    elif rule == "exclusiveMaximum":
        message = f"{value} is not below {error.validator_value}"
    elif rule == "not":
        message = f"{value} is not allowed"
    elif rule == "anyOf" and len(path) > 1 and path[-2] == "shape":
        message = f"{value} is neither -1 nor a positive size"
    else:
        message = error.message
    found.append(Violation(where, message))


def _check_finite(value, where, found):
    if isinstance(value, float) and not math.isfinite(value):
        found.append(Violation(where, "not a finite number"))
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, where + pointer(key), found)
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_finite(item, where + pointer(i), found)


def _is_int(value):
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and value.is_integer())


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _field(value, *keys):
    """``value[k0][k1]...`` or None where any step is absent or of another type."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _entries(properties, field):
    value = properties.get(field)
    return [(i, e) for i, e in enumerate(value if isinstance(value, list) else [])]


def _roles_known(properties, field, definition):
    known = _schema()["definitions"][definition]["properties"]["otb:role"]["enum"]
    entries = [e for _, e in _entries(properties, field)]
    return bool(entries) and all(_field(e, "otb:role") in known for e in entries)


def _check_properties(p, found):
    def report(message, *path):
        found.append(Violation(pointer("properties", *path), message))

    inputs = [(i, e) for i, e in _entries(p, "mlm:input") if isinstance(e, dict)]
    outputs = [(i, e) for i, e in _entries(p, "mlm:output") if isinstance(e, dict)]
    patch = _field(p, "otb:tiling", "patch")
    patch = int(patch) if _is_int(patch) else None

    _check_names(inputs, "mlm:input", report)
    _check_names(outputs, "mlm:output", report)
    _check_tiling(p, report)
    for i, entry in inputs:
        _check_input(i, entry, patch, report)
    for i, entry in outputs:
        _check_output(i, entry, patch, report)
    if p.get("otb:task") == "change-detection":
        # Roles are counted only where each entry has one: the schema told of the others.
        if _roles_known(p, "mlm:input", "input"):
            _check_change_inputs(inputs, report)
        if _roles_known(p, "mlm:output", "output"):
            _check_change_outputs(outputs, report)

    forward = _field(p, "otb:method", "forward")
    names = [e.get("name") for _, e in inputs]
    if not names:
        return
    if isinstance(forward, list) and all(isinstance(n, str) for n in forward + names):
        if sorted(forward) != sorted(names):
            report(
                f"{_short(forward)} does not list the inputs, {_short(names)}, each once",
                "otb:method",
                "forward",
            )


def _check_names(entries, field, report):
    seen = set()
    for i, entry in entries:
        name = entry.get("name")
        if isinstance(name, str):
            if name in seen:
                report(f"{_short(name)} is used twice", field, i, "name")
            seen.add(name)


def _check_tiling(p, report):
    tiling = p.get("otb:tiling")
    if not isinstance(tiling, dict):
        return
    patch, halo = tiling.get("patch"), tiling.get("halo")
    multiple, blend = tiling.get("multiple", 1), tiling.get("blend", "crop")
    if not (_is_int(patch) and _is_int(multiple) and patch >= 8 and multiple >= 1):
        return
    if patch % multiple:
        report(f"{patch} is not a multiple of {multiple} (multiple)", "otb:tiling", "patch")
    if blend == "hann":
        if patch % 2 or (patch // 2) % multiple:
            report(
                f"hann: half of the patch ({patch / 2:g}) is not a multiple of {multiple}",
                "otb:tiling",
                "patch",
            )
    elif blend == "crop" and _is_int(halo) and halo >= 0:
        cut = ceil_to_multiple(halo, multiple)
        if 2 * cut >= patch:
            report(
                f"crop: {cut} pixels (halo {halo} rounded up to a multiple of {multiple}) are cut "
                f"from each side, which leaves nothing of a patch of {patch}",
                "otb:tiling",
                "halo",
            )


def ceil_to_multiple(value, multiple):
    """The smallest multiple of ``multiple`` that is not below ``value``."""
    return -(-int(value) // int(multiple)) * int(multiple)


def _check_shape(shape, wanted, patch, channels_name, report, *path):
    """``[-1, wanted, H, W]`` with H, W = -1 or the patch; ``wanted`` is None where unknown."""
    if not isinstance(shape, list) or not all(_is_int(s) for s in shape):
        return
    shape = [int(s) for s in shape]
    if len(shape) != 4:
        report(f"{len(shape)} sizes are given, 4 are expected", *path)
        return
    if shape[0] != -1:
        report(f"{shape[0]} is given, -1 is expected: the batch size is free", *path, 0)
    if wanted is not None and shape[1] != wanted:
        report(f"{shape[1]} is given, {wanted} is expected ({channels_name})", *path, 1)
    elif wanted is None and shape[1] == -1:
        report("the number of channels must be given", *path, 1)
    for axis in (2, 3):
        if patch is not None and shape[axis] > 0 and shape[axis] != patch:
            report(f"{shape[axis]} is given, -1 or the patch ({patch}) is expected", *path, axis)


def _check_input(i, entry, patch, report):
    at = ("mlm:input", i)
    bands = entry.get("bands")
    count = len(bands) if isinstance(bands, list) else None
    if isinstance(bands, list):
        names = [b.get("name") if isinstance(b, dict) else b for b in bands]
        for k, name in enumerate(names):
            if isinstance(name, str) and name in names[:k]:
                report(f"{_short(name)} is listed twice", *at, "bands", k)
    if entry.get("otb:role") == "image":
        shape = _field(entry, "input", "shape")
        # Without bands there is a violation already: say nothing about the channels then.
        wanted = count or (shape[1] if isinstance(shape, list) and len(shape) > 1 else None)
        _check_shape(shape, wanted, patch, "one a band", report, *at, "input", "shape")
    scalings = entry.get("value_scaling")
    if not isinstance(scalings, list):
        return
    if count is not None and len(scalings) not in (0, 1, count):
        report(
            f"{len(scalings)} scalings are given, 1 or {count} (one a band) are expected",
            *at,
            "value_scaling",
        )
    for k, scaling in enumerate(scalings):
        if not isinstance(scaling, dict):
            continue
        low, high = scaling.get("minimum"), scaling.get("maximum")
        if scaling.get("type") in ("min-max", "clip") and _is_number(low) and _is_number(high):
            if not high > low:
                report(
                    f"{high:g} is not above the minimum, {low:g}",
                    *at,
                    "value_scaling",
                    k,
                    "maximum",
                )


def _check_output(i, entry, patch, report):
    at = ("mlm:output", i)
    role, classes = entry.get("otb:role"), entry.get("classification:classes")
    shape = _field(entry, "result", "shape")
    wanted, why = None, ""
    if role == "change_probability":
        wanted, why = 1, "a probability of change"
    elif role in CLASS_ROLES and isinstance(classes, list) and classes:
        count = len(classes)
        if role == "transition_logits":
            wanted, why = 1 + count * count, f"no change, then {count} x {count} transitions"
        else:
            wanted, why = count, "one a class"
    _check_shape(shape, wanted, patch, why, report, *at, "result", "shape")
    if role == "change_logits" and isinstance(shape, list) and len(shape) == 4:
        if _is_int(shape[1]) and shape[1] not in (-1, 1, 2):
            report(
                f"{shape[1]} is given, 1 or 2 channels of change logits are expected",
                *at,
                "result",
                "shape",
                1,
            )
    for field in ("value", "name"):
        seen = []
        for k, item in enumerate(classes if isinstance(classes, list) else []):
            value = _field(item, field)
            if value is None:
                continue
            if value in seen:
                report(f"{_short(value)} is used twice", *at, "classification:classes", k, field)
            seen.append(value)


def _check_change_inputs(inputs, report):
    images = [(i, e) for i, e in inputs if e.get("otb:role") == "image"]
    if len(images) != 2:
        report(
            f"change-detection has exactly two image inputs, {len(images)} declared", "mlm:input"
        )
    dates = []
    for i, entry in images:
        if "otb:date" not in entry:
            report("required for the images of change-detection", "mlm:input", i, "otb:date")
            continue
        date = entry["otb:date"]
        if date in dates:
            report(f"date {_short(date)} is used twice", "mlm:input", i, "otb:date")
        dates.append(date)
    for i, entry in inputs:
        if entry.get("otb:role") == "sits":
            report("a time series in a change-detection contract", "mlm:input", i, "otb:role")


def _check_change_outputs(outputs, report):
    roles = [e.get("otb:role") for _, e in outputs]
    change = [r for r in roles if r in CHANGE_ROLES]
    if not change:
        report("change-detection needs one of " + ", ".join(CHANGE_ROLES), "mlm:output")
    elif len(change) > 1:
        report(
            "more than one output tells the change: " + ", ".join(change) + "; mark the others aux",
            "mlm:output",
        )
    sem = {}
    for role, other in (("sem1_logits", "sem2_logits"), ("sem2_logits", "sem1_logits")):
        found = [(i, e) for i, e in outputs if e.get("otb:role") == role]
        if found and other not in roles:
            report(f"{role} without {other}", "mlm:output", found[0][0], "otb:role")
        for i, _ in found[1:]:
            report(f"{role} is declared twice", "mlm:output", i, "otb:role")
        if found:
            sem[role] = found[0]
    if len(sem) == 2:
        counts = [
            len(e["classification:classes"])
            for _, e in sem.values()
            if isinstance(e.get("classification:classes"), list)
        ]
        if len(counts) == 2 and counts[0] != counts[1]:
            report(
                f"{counts[1]} classes, but sem1_logits has {counts[0]}",
                "mlm:output",
                sem["sem2_logits"][0],
                "classification:classes",
            )
