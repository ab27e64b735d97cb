"""The model contract: build, read and validate (see ``doc/model-contract.md``).

Nothing here imports torch. A contract is a plain ``dict``, as ``json.loads`` gives it.
"""

import copy
import datetime
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
TASK_SERIES = "time-series-classification"
TASK_LIKELIHOOD = "change-likelihood"
LIKELIHOOD_KINDS = ("otb:generative", "otb:masked", "otb:ratio", "otb:features")
FIELD_KINDS = ("velocity", "epsilon", "x0", "v_diffusion", "score", "edm")
SPACE = ["height", "width"]
IMAGE_DIMS = ["batch", "bands", "height", "width"]
RESULT_DIMS = ["batch", "channel", "height", "width"]
# Inputs of change-likelihood without bands: their axes.
BANDLESS = {
    "diffusion_time": ["batch"],
    "condition_flag": ["batch"],
    "token_mask": IMAGE_DIMS,
    "latent": RESULT_DIMS,
    "condition_latent": RESULT_DIMS,
}
# Inputs of change-detection that the application makes from both images.
REGRESSIONS = ("regression", "regression_score")
REGRESSION_CHANNELS = "4 a band: target, predicted target, source, residual"
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
    """One entry of ``mlm:output`` without its shape, which ``change_detection``, ``time_series``
    and ``change_likelihood`` fill.

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
    regression=False,
    gsd_m=None,
    nodata=None,
    nodata_rule="all",
    nodata_fill=0.0,
    radiometric_matching=True,
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
        regression: the network is ``forward(x1, x2, r2, r1, s)`` and also takes what the pair's
            own regression says: r2, that of date 2 from date 1, four channels a band (target,
            predicted target, source, residual); r1, the other way; s, its standardised score.
        outputs: a list of ``output(...)``; one channel of change logits where not given.
        patch, halo, multiple: pixels. ``probe-halo`` measures the last two.
        gsd_m: ground sampling distance of the training data, metres.
        nodata: value that stands for no-data in raw images that declare none.
        nodata_fill: what the network sees there, after scaling.
        radiometric_matching: may an application match date 2 to date 1 before it is scaled?

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

    def made_input(name, role, channels, **fields):
        return {
            "name": name,
            "bands": [],
            "input": {
                "shape": [-1, channels, patch, patch],
                "dim_order": list(IMAGE_DIMS),
                "data_type": "float32",
            },
            "otb:role": role,
            **fields,
        }

    inputs = [one_input(1, scaling), one_input(2, scaling if scaling2 is None else scaling2)]
    if regression:
        for date in (2, 1):
            fields = {"bands": list(bands), "otb:date": date}
            inputs.append(made_input(f"r{date}", "regression", 4 * len(bands), **fields))
        inputs.append(made_input("s", "regression_score", 1))

    item = _item(
        id,
        "change-detection",
        inputs,
        [_with_result(o, RESULT_DIMS, [patch, patch]) for o in outputs],
        {"patch": patch, "multiple": multiple, "halo": halo, "blend": blend, "tta": list(tta)},
        {"temperature": temperature, "threshold": threshold},
        _provenance(license, training_data, gsd_m, recipe, authors, citation),
        architecture=architecture,
        mlm_task="semantic-segmentation",
        bands=bands,
    )
    if not radiometric_matching:
        item["properties"]["otb:radiometric_matching"] = False
    return item


def _with_result(entry, dims, space, mlm_task="semantic-segmentation"):
    """An entry of ``output(...)`` with the shape of its tensor."""
    entry = copy.deepcopy(entry)
    channels = entry.pop("channels", None)
    if "result" not in entry and channels is not None:
        entry["result"] = {
            "shape": [-1, channels] + list(space),
            "dim_order": list(dims),
            "data_type": "float32",
        }
    return {"tasks": [mlm_task], **entry}


def _provenance(license, training_data, gsd_m, recipe, authors, citation):
    extra = dict(gsd_m=gsd_m, recipe=recipe, authors=authors, citation=citation)
    return {
        "license": license,
        "training_data": training_data,
        **{k: v for k, v in extra.items() if v is not None},
    }


def _item(
    id, task, inputs, outputs, tiling, calibration, provenance, *, architecture, mlm_task, bands
):
    """The STAC item around what a builder made."""
    arguments = [e["name"] for e in inputs if e.get("otb:argument", True)]
    calibrated = {} if calibration is None else {"otb:calibration": calibration}
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
            "mlm:tasks": [mlm_task],
            "mlm:framework": "PyTorch",
            "mlm:accelerator": None,
            "mlm:input": inputs,
            "mlm:output": outputs,
            "otb:version": VERSION,
            "otb:task": task,
            "otb:method": {"forward": arguments},
            "otb:tiling": tiling,
            **calibrated,
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


# The inputs of ``time_series``: entries of ``mlm:input`` whose axes and sizes it fills.


def normalized_difference(name, a, b):
    """A band of a ``series``: (a - b) / (a + b) of two others, before scaling."""
    return {"name": name, "format": "normalized-difference", "expression": [a, b]}


def series(
    name,
    bands,
    scaling,
    *,
    steps=None,
    policy=None,
    gapfill=None,
    grid=None,
    pad_side="end",
    pad_value=0.0,
    sensor=1,
    layout="BTC",
    nodata=None,
    nodata_rule="all",
    nodata_fill=0.0,
):
    """An input of role ``sits``.

    Args:
        bands: names, or ``normalized_difference(...)``, in the order of the channels.
        scaling: ``value_scaling``, as for ``change_detection``.
        steps: number of time steps; that of the grid's dates where it is not given.
        policy: ``fixed`` (exactly ``steps``), ``max`` (up to ``steps``, padded) or ``any``;
            ``fixed`` where steps or a grid are given, else ``any``.
        gapfill: ``none``, ``linear`` or ``grid``; ``grid`` where a grid is given, else it must be
            said.
        grid: ``(start, end, step in days)``, as ``YYYY-MM-DD`` or ``MM-DD``.
        sensor: which image list brings the bands (1 to 4; 0: the static image), or a list with one
            a band.
        layout: ``BTC`` or ``BCT``: which of time and bands comes first. Height and width follow
            where the network sees patches or windows.
    """
    if layout not in ("BTC", "BCT"):
        raise ValueError(f"layout is BTC or BCT, not {layout!r}")
    gapfill = gapfill or ("grid" if grid else None)
    if gapfill is None:
        raise ValueError(f"{name}: gapfill is needed: none, linear or grid")
    policy = policy or ("fixed" if steps is not None or grid else "any")
    if steps is None and grid and policy != "any":
        steps = _grid_count(*grid)
    temporal = {"policy": policy, "gapfill": gapfill}
    if steps is not None:
        temporal["length"] = steps
    if policy == "max":
        temporal.update(pad_side=pad_side, pad_value=pad_value)
    if grid:
        temporal["grid"] = dict(zip(("start", "end", "step"), grid))
    return {
        "name": name,
        "bands": [dict(b) if isinstance(b, dict) else b for b in bands],
        "value_scaling": copy.deepcopy(scaling),
        "resize_type": None,
        "otb:role": "sits",
        "otb:nodata": nodata,
        "otb:nodata_rule": nodata_rule,
        "otb:nodata_fill": nodata_fill,
        "otb:sensor": sensor,
        "otb:temporal": temporal,
        "layout": layout,
    }


def _beside(name, role, of, data_type, **fields):
    entry = {"name": name, "bands": [], "otb:role": role, "data_type": data_type}
    if of is not None:
        entry["otb:of"] = of
    return {**entry, **fields}


def dates(name, encoding="doy", *, of=None, reference=None, pad_value=0, data_type="float32"):
    """An input of role ``dates``. ``of``: its series, where there are several."""
    fields = {"kind": encoding, "pad_value": pad_value}
    if reference is not None:
        fields["reference"] = reference
    return _beside(name, "dates", of, data_type, **{"otb:encoding": fields})


def validity(name, polarity, *, granularity="date", of=None, min_valid=None, data_type="float32"):
    """An input of role ``valid``: what is valid (or masked) by date, by pixel or by band.

    ``polarity`` is what a 1 says: ``valid`` or ``masked``. ``granularity`` is ``date``, ``pixel``
    or ``band``; ``of`` names its series, where there are several.
    """
    if granularity not in ("date", "pixel", "band"):
        raise ValueError(f"granularity is date, pixel or band, not {granularity!r}")
    fields = {"otb:polarity": polarity, "granularity": granularity}
    if min_valid is not None:
        fields["otb:min_valid"] = min_valid
    return _beside(name, "valid", of, data_type, **fields)


def month(name, *, of=None, data_type="int64"):
    """An input of role ``month``: that of the first time step, 0 to 11."""
    return _beside(name, "month", of, data_type)


def latlon(name):
    """An input of role ``latlon``: latitude and longitude in degrees."""
    return _beside(name, "latlon", None, "float32")


def static(name, bands, scaling, *, nodata=None, nodata_rule="all", nodata_fill=0.0):
    """An input of role ``static``: bands of the image ``static``, an elevation perhaps."""
    return {
        "name": name,
        "bands": list(bands),
        "value_scaling": copy.deepcopy(scaling),
        "resize_type": None,
        "otb:role": "static",
        "otb:nodata": nodata,
        "otb:nodata_rule": nodata_rule,
        "otb:nodata_fill": nodata_fill,
    }


def time_series(
    id,
    inputs,
    *,
    license,
    training_data,
    classes=None,
    outputs=None,
    window=1,
    patch=None,
    halo=None,
    multiple=1,
    blend="crop",
    tta=(),
    sensors=None,
    temperature=1.0,
    gsd_m=None,
    architecture="unspecified",
    recipe=None,
    authors=None,
    citation=None,
):
    """The contract of a classifier of time series, as a dict.

    Args:
        inputs: in the order of the arguments of ``forward``: ``series``, ``dates``, ``validity``,
            ``month``, ``latlon``, ``static``.
        classes: those of ``logits`` and ``probabilities``, as for ``output``; values are >= 1.
        outputs: a list of ``output(...)``; logits where not given.
        window: side of what the network sees around a pixel, odd; 1: the pixel alone.
        patch, halo, multiple, blend, tta: for a network that labels whole patches, instead of
            ``window``.
        sensors: what the image lists hold: names, or ``(name, optional)``.

    The result is not validated here: ``validate`` reports every violation, ``export`` refuses.
    """
    by_patch = patch is not None
    space = [patch, patch] if by_patch else [window, window] if window != 1 else []
    by_name = {e["name"]: e for e in inputs if e["otb:role"] == "sits"}

    def one_input(entry):
        entry = copy.deepcopy(entry)
        role, of = entry["otb:role"], entry
        if role in ("dates", "valid"):
            alone = next(iter(by_name)) if len(by_name) == 1 else None
            of = by_name.get(entry.get("otb:of", alone), {"layout": "BTC", "bands": []})
        steps = of.get("otb:temporal", {}).get("length", -1)
        sizes = {"T": ("time", steps), "C": ("bands", len(of["bands"])), "B": ("batch", -1)}
        layout = {"dates": "BT", "month": "B", "latlon": "B", "static": "BC"}.get(role, "BT")
        granularity = entry.pop("granularity", None)
        if role == "sits" or granularity == "band":
            layout = of["layout"]
        if granularity == "band":
            entry["bands"] = [b["name"] if isinstance(b, dict) else b for b in of["bands"]]
        axes = [sizes[letter] for letter in layout]
        if role == "latlon":
            axes.append(("channel", 2))
        if role in ("sits", "static") or granularity in ("pixel", "band"):
            axes += zip(SPACE, space)
        entry.pop("layout", None)
        entry["input"] = {
            "shape": [size for _, size in axes],
            "dim_order": [name for name, _ in axes],
            "data_type": entry.pop("data_type", "float32"),
        }
        return entry

    def one_output(entry):
        if entry.get("otb:role") in ("logits", "probabilities") and classes is not None:
            if "classification:classes" not in entry:
                entry = {**entry, **output(entry["name"], entry["otb:role"], classes=classes)}
        return _with_result(
            entry,
            RESULT_DIMS if by_patch else RESULT_DIMS[:2],
            space if by_patch else [],
            mlm_task,
        )

    mlm_task = "semantic-segmentation" if by_patch else "classification"
    if outputs is None:
        outputs = [output("logits", "logits", classes=classes)]
    if by_patch:
        tiling = {"unit": "patch", "patch": patch, "halo": halo, "multiple": multiple}
        tiling.update(blend=blend, tta=list(tta))
    else:
        tiling = {"unit": "pixel", "window": window}
    bands = dict.fromkeys(b for e in inputs for b in e["bands"] if isinstance(b, str))
    made = _item(
        id,
        TASK_SERIES,
        [one_input(e) for e in inputs],
        [one_output(o) for o in outputs],
        tiling,
        {"temperature": temperature},
        _provenance(license, training_data, gsd_m, recipe, authors, citation),
        architecture=architecture,
        mlm_task=mlm_task,
        bands=bands,
    )
    if sensors is not None:
        made["properties"]["otb:sensors"] = [
            {"name": s} if isinstance(s, str) else dict(zip(("name", "optional"), s))
            for s in sensors
        ]
    return made


def change_likelihood(
    id,
    bands,
    scaling,
    *,
    patch,
    halo,
    license,
    training_data,
    generative=None,
    masked=None,
    ratio=None,
    features=None,
    null=None,
    methods=None,
    time_type="float32",
    outputs=None,
    multiple=1,
    blend="crop",
    tta=(),
    gsd_m=None,
    nodata=None,
    nodata_rule="all",
    nodata_fill=0.0,
    architecture="unspecified",
    recipe=None,
    authors=None,
    citation=None,
):
    """The contract of a network whose likelihoods, or features, tell change, as a dict.

    Exactly one of ``generative``, ``masked``, ``ratio`` and ``features`` is given: the object of
    that name in the contract (see ``doc/model-contract.md``). What ``forward`` takes follows:

    * ``generative``: ``(x, t)``, then the condition and its flag where ``null`` says so; with the
      method ``encode`` latents instead of images;
    * ``masked``: ``(x, mask)``, then the condition where ``null`` is "none";
    * ``ratio``: one tensor of 4 channels a band; ``features``: ``(x)``.

    Args:
        bands: names of the bands, in the order of the channels.
        scaling: ``value_scaling``, as for ``change_detection``; not looked at for ``ratio``.
        null: how the network stands for the absence of its condition, the other date: "none" (it
            cannot), "zeros", "flag"; None: it has no condition.
        methods: what the module exports beside ``forward``: ``{name: {"channels", "scale"}}`` of
            encode, decode, features; ``{"div": {}}``.
        time_type: "float32" or, of a discrete index, "int64".
        outputs: a list of ``output(...)``; the one that the kind needs where not given.

    The result is not validated here: ``validate`` reports every violation, ``export`` refuses.
    """
    bands = list(bands)
    latent = (methods or {}).get("encode")
    count = latent["channels"] if latent else len(bands)
    side = patch // latent["scale"] if latent else patch
    raw = {"nodata": nodata, "nodata_rule": nodata_rule, "nodata_fill": nodata_fill}
    raw = {f"otb:{k}": v for k, v in raw.items()}

    def entry(name, role, channels=None, size=patch, data_type="float32", dims=None, **fields):
        space = [] if channels is None else [channels, size, size]
        dims = dims or IMAGE_DIMS
        return {
            "name": name,
            "bands": [],
            "input": {
                "shape": [-1, *space],
                "dim_order": dims[: 1 + len(space)],
                "data_type": data_type,
            },
            "otb:role": role,
            **fields,
        }

    def image(name, role, **fields):
        fields = {"value_scaling": copy.deepcopy(scaling), "resize_type": None, **raw, **fields}
        return entry(name, role, len(bands), **{**fields, "bands": list(bands)})

    given = {} if null is None else {"otb:null": null}
    if generative is not None:
        if latent:
            inputs = [entry("z", "latent", count, side, dims=RESULT_DIMS)]
        else:
            inputs = [image("x", "image")]
        inputs.append(entry("t", "diffusion_time", data_type=time_type))
        if null is not None and latent:
            other = entry("condition", "condition_latent", count, side, dims=RESULT_DIMS, **given)
            inputs.append(other)
        elif null is not None:
            inputs.append(image("condition", "condition", **given))
        if null == "flag":
            inputs.append(entry("flag", "condition_flag"))
        if latent:
            inputs.append(image("x", "image", **{"otb:argument": False}))
        role = generative.get("kind", "velocity")
        count *= 2 if generative.get("predicts_var") else 1
    elif masked is not None:
        inputs, role = [image("x", "image"), entry("mask", "token_mask", 1)], "reconstruction"
        if null is not None:
            inputs.append(image("condition", "condition", **given))
    elif ratio is not None:
        inputs = [entry("regression", "regression", 4 * len(bands), **{"bands": list(bands)})]
        role, count = "log_ratio", 1
    else:
        inputs, role = [image("x", "image")], "features"
        count = (features or {}).get("channels")
    if outputs is None:
        outputs = [output(role, role, channels=count)]
        if count is None:
            del outputs[0]["channels"]  # filled in at export
    made = _item(
        id,
        TASK_LIKELIHOOD,
        inputs,
        [_with_result(o, RESULT_DIMS, [side, side], "generative") for o in outputs],
        {"patch": patch, "multiple": multiple, "halo": halo, "blend": blend, "tta": list(tta)},
        None,
        _provenance(license, training_data, gsd_m, recipe, authors, citation),
        architecture=architecture,
        mlm_task="generative",
        bands=bands,
    )
    kinds = dict(generative=generative, masked=masked, ratio=ratio, features=features)
    kinds["methods"] = methods
    for name, value in kinds.items():
        if value is not None:
            made["properties"][f"otb:{name}"] = copy.deepcopy(value)
    return made


def likelihood_kind(properties):
    """Which of ``LIKELIHOOD_KINDS`` a contract of change-likelihood is; None if not one."""
    found = [k for k in LIKELIHOOD_KINDS if k in properties]
    return found[0] if len(found) == 1 else None


def is_latent(properties):
    """Whether ``forward`` takes latents, which the method ``encode`` gives."""
    return isinstance(_field(properties, "otb:methods"), dict) and (
        "encode" in properties["otb:methods"]
    )


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
    if rule is None and error.schema is False and path[-1:] == ["otb:calibration"]:
        found.append(Violation(where, "not of change-likelihood: its calibration is of the run"))
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
        few = isinstance(error.instance, list) and len(error.instance) > 0
        message = f"{value} has fewer than {error.validator_value} entries" if few else "empty"
    elif rule == "maxItems" and error.validator_value == 0:
        message = f"{value} is given where there must be nothing"
    elif rule == "maxItems":
        message = f"{value} has more than {error.validator_value} entries"
    elif rule == "uniqueItems":
        message = f"{value} has repeated entries"
    elif rule == "minimum":
        message = f"{value} is below {error.validator_value}"
    elif rule == "maximum":
        message = f"{value} is above {error.validator_value}"
    elif rule == "exclusiveMinimum":
        message = f"{value} is not above {error.validator_value}"
    elif rule == "exclusiveMaximum":
        message = f"{value} is not below {error.validator_value}"
    elif rule == "not" and path[-1:] == ["window"]:
        message = f"{value} is not odd"
    elif rule == "not" and path[-2:-1] == ["bands"]:
        message = f"{value} is computed from others: only bands of sits can be"
    elif rule == "not":
        message = f"{value} is not allowed" + (" for a series" if path[-1:] == ["otb:role"] else "")
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
    view = _view(p.get("otb:tiling"))

    _check_names(inputs, "mlm:input", report)
    _check_names(outputs, "mlm:output", report)
    _check_tiling(p, report)
    if p.get("otb:task") == TASK_SERIES:
        _check_series(p, inputs, outputs, view, report)
    elif p.get("otb:task") == TASK_LIKELIHOOD:
        _check_likelihood(p, inputs, outputs, view, report)
    else:
        for i, entry in inputs:
            _check_input(i, entry, view, report)
        for i, entry in outputs:
            _check_output(i, entry, view, report)
    if p.get("otb:task") == "change-detection":
        # Roles are counted only where each entry has one: the schema told of the others.
        if _roles_known(p, "mlm:input", "input"):
            _check_change_inputs(inputs, report)
        if _roles_known(p, "mlm:output", "output"):
            _check_change_outputs(outputs, report)

    forward = _field(p, "otb:method", "forward")
    names = [e.get("name") for _, e in inputs if e.get("otb:argument") is not False]
    if not names:
        return
    if isinstance(forward, list) and all(isinstance(n, str) for n in forward + names):
        if sorted(forward) != sorted(names):
            report(
                f"{_short(forward)} does not list the inputs, {_short(names)}, each once",
                "otb:method",
                "forward",
            )


class _View(namedtuple("_View", "unit side space")):
    """What a tiling says: ``unit``, the side of what the network sees, and whether the inputs of a
    series have height and width; None where it does not say it rightly (the side of a patch is
    kept even then).
    """

    __slots__ = ()

    @property
    def side_name(self):
        return "window" if self.unit == "pixel" else "patch"


def _view(tiling):
    unit = tiling.get("unit", "patch") if isinstance(tiling, dict) else None
    if unit == "patch":
        patch = tiling.get("patch")
        return _View("patch", int(patch) if _is_int(patch) else None, True)
    if unit == "pixel":
        window = tiling.get("window", 1)
        good = _is_int(window) and 1 <= window <= 1000000 and window % 2 == 1
        return _View("pixel", int(window), window > 1) if good else _View("pixel", None, None)
    return _View(None, None, None)


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
    if not isinstance(tiling, dict) or tiling.get("unit", "patch") != "patch":
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


def _check_shape(shape, dims, wanted, view, channels_name, report, *path):
    """One size for each axis of ``dims``: the batch free, height and width free or as the tiling
    says, ``wanted`` channels (None where unknown). Time is checked elsewhere."""
    if not isinstance(shape, list) or not all(_is_int(s) for s in shape):
        return
    shape = [int(s) for s in shape]
    if len(shape) != len(dims):
        report(f"{len(shape)} sizes are given, {len(dims)} are expected", *path)
        return
    for axis, (dim, size) in enumerate(zip(dims, shape)):
        if dim == "batch" and size != -1:
            report(f"{size} is given, -1 is expected: the batch size is free", *path, axis)
        elif dim in ("bands", "channel"):
            if wanted is not None and size != wanted:
                report(f"{size} is given, {wanted} is expected ({channels_name})", *path, axis)
            elif wanted is None and size == -1:
                report("the number of channels must be given", *path, axis)
        elif dim in SPACE and view.side is not None and size > 0 and size != view.side:
            report(
                f"{size} is given, -1 or the {view.side_name} ({view.side}) is expected",
                *path,
                axis,
            )


def _check_input(i, entry, view, report):
    at = ("mlm:input", i)
    count = _check_bands(entry, at, report)
    role = entry.get("otb:role")
    shape = _field(entry, "input", "shape")
    # Without bands there is a violation already: say nothing about the channels then.
    any_number = shape[1] if isinstance(shape, list) and len(shape) > 1 else None
    wanted, why = {
        "image": (count or any_number, "one a band"),
        "regression": (4 * count if count else any_number, REGRESSION_CHANNELS),
        "regression_score": (1, "a score"),
    }.get(role if isinstance(role, str) else None, (None, None))
    if why:
        _check_shape(shape, IMAGE_DIMS, wanted, view, why, report, *at, "input", "shape")
    if role not in REGRESSIONS:
        _check_scalings(entry, count, at, report)


def _check_bands(entry, at, report):
    """The number of bands, None where there is no list of them."""
    bands = entry.get("bands")
    count = len(bands) if isinstance(bands, list) else None
    if isinstance(bands, list):
        names = [b.get("name") if isinstance(b, dict) else b for b in bands]
        for k, name in enumerate(names):
            if isinstance(name, str) and name in names[:k]:
                report(f"{_short(name)} is listed twice", *at, "bands", k)
    return count


def _check_scalings(entry, count, at, report):
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


def _check_output(i, entry, view, report):
    dims = RESULT_DIMS
    role, classes = entry.get("otb:role"), entry.get("classification:classes")
    at = ("mlm:output", i)
    _check_classes(classes, at, report)
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
    _check_shape(shape, dims, wanted, view, why, report, *at, "result", "shape")
    if role == "change_logits" and isinstance(shape, list) and len(shape) == 4:
        if _is_int(shape[1]) and shape[1] not in (-1, 1, 2):
            report(
                f"{shape[1]} is given, 1 or 2 channels of change logits are expected",
                *at,
                "result",
                "shape",
                1,
            )


def _shape_at(entry, field):
    shape = _field(entry, field, "shape")
    good = isinstance(shape, list) and len(shape) == 4 and all(_is_int(n) for n in shape)
    return shape if good else None


def _check_classes(classes, at, report):
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
    for role in ("image", "regression"):
        dates = []
        for i, entry in inputs:
            if entry.get("otb:role") != role:
                continue
            if "otb:date" not in entry:
                text = "required for the images and the regressions of change-detection"
                report(text, "mlm:input", i, "otb:date")
                continue
            date = entry["otb:date"]
            if date in dates:
                report(f"date {_short(date)} is used twice", "mlm:input", i, "otb:date")
            dates.append(date)
    scores = [i for i, e in inputs if e.get("otb:role") == "regression_score"]
    for i in scores[1:]:
        report("regression_score is declared twice", "mlm:input", i, "otb:role")
    for i, entry in inputs:
        if entry.get("otb:role") not in ("image",) + REGRESSIONS:
            text = "change-detection takes images, and what is made from them: " + ", ".join(
                REGRESSIONS
            )
            report(text, "mlm:input", i, "otb:role")
    if len(images) != 2:
        return
    bands = [_names_of_bands(e) for _, e in images]
    regressions = [(i, e) for i, e in inputs if e.get("otb:role") == "regression"]
    if all(bands) and bands[0] != bands[1] and (regressions or scores):
        report("a regression between the dates needs the same bands at both", "mlm:input")
        return
    for i, entry in regressions:
        own = _names_of_bands(entry)
        if bands[0] and own and own != bands[0]:
            report("the bands must be those of the images", "mlm:input", i, "bands")


def _names_of_bands(entry):
    """Names of the bands of an input, None where they are not a list of names."""
    bands = entry.get("bands")
    if not isinstance(bands, list):
        return None
    names = [b.get("name") if isinstance(b, dict) else b for b in bands]
    return names if names and all(isinstance(n, str) for n in names) else None


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


# ---------------------------------------------------------------------------------------------
# Time series

_OF_SERIES = ("dates", "valid", "month")
_SERIES_ROLES = ("sits", "static", "latlon") + _OF_SERIES


def _check_series(p, inputs, outputs, view, report):
    reports = functools.partial(_series_input, inputs=dict(inputs), view=view, report=report)
    for i, entry in inputs:
        reports(i, entry)
    roles = [_field(e, "otb:role") for _, e in _entries(p, "mlm:input")]
    known = _roles_known(p, "mlm:input", "input")
    if known and "sits" not in roles:
        report(f"{TASK_SERIES} needs an input of role sits", "mlm:input")
    for role in ("latlon", "static"):
        for i in [i for i, r in enumerate(roles) if r == role][1:]:
            report(f"{role} is declared twice", "mlm:input", i, "otb:role")
    _check_sensors(p, inputs, known, report)
    seen = {}
    for i, entry in outputs:
        role = entry.get("otb:role")
        _series_output(i, entry, view, report)
        group = "classes" if role in ("logits", "probabilities") else role
        if group in ("classes", "embedding"):
            if group in seen:
                report(f"{role} beside {seen[group]}: one is enough", "mlm:output", i, "otb:role")
            seen.setdefault(group, role)
    if _roles_known(p, "mlm:output", "output") and not seen:
        if all(e.get("otb:role") == "aux" for _, e in outputs):
            report("needs logits, probabilities or an embedding", "mlm:output")


def _series_of(entry, inputs):
    """(index, entry) of the series that an input belongs to, None where it cannot be told."""
    found = [(i, e) for i, e in inputs.items() if e.get("otb:role") == "sits"]
    if "otb:of" in entry:
        found = [(i, e) for i, e in found if e.get("name") == entry["otb:of"]]
        return found[0] if found else None
    return found[0] if len(found) == 1 else None


def _dims(entry, view):
    """``dim_order`` of an input of a series, where it is one that its role may have."""
    role, dims = entry.get("otb:role"), _field(entry, "input", "dim_order")
    space = [SPACE] if view.space else [[]] if view.space is False else [SPACE, []]
    with_time = (["batch", "time", "bands"], ["batch", "bands", "time"])
    heads = {"sits": with_time, "valid": [["batch", "time"], *with_time]}
    heads["static"] = [["batch", "bands"]]
    allowed = [h + s for h in heads.get(role, []) for s in space]
    if role in ("dates", "valid"):
        allowed.append(["batch", "time"])
    if role == "month":
        allowed.append(["batch"])
    if role == "latlon":
        allowed.append(["batch", "channel"])
    return dims if dims in allowed else None


def _series_input(i, entry, inputs, view, report):
    at = ("mlm:input", i)
    role = entry.get("otb:role")
    count = _check_bands(entry, at, report)
    if role not in _SERIES_ROLES:
        _check_scalings(entry, count, at, report)
        return
    dims = _dims(entry, view)
    given = _field(entry, "input", "dim_order")
    if dims is None and any(_dims(entry, _View(None, None, s)) for s in (True, False)):
        where = "without" if view.space is False else "with"
        report(f"{_short(given)} is given, for inputs {where} height, width", *at, *_DIM_ORDER)
    wanted, why = count or None, "one a band"
    if role == "latlon":
        wanted, why = 2, "latitude, longitude"
    if role in ("sits", "static"):
        _check_scalings(entry, count, at, report)
    steps = _steps(entry) if role == "sits" else None
    if role in _OF_SERIES:
        steps, wanted = _check_of(i, entry, dims, inputs, view, report)
        why = "one a band of the series"
    if dims:
        shape = _field(entry, "input", "shape")
        _check_shape(shape, dims, wanted, view, why, report, *at, "input", "shape")
        if steps is not None and isinstance(shape, list) and len(shape) == len(dims):
            for axis, (dim, size) in enumerate(zip(dims, shape)):
                if dim == "time" and _is_int(size) and size != (steps or -1):
                    text = f"{steps} is expected" if steps else "-1 is expected (policy any)"
                    report(f"{int(size)} is given, {text}", *at, "input", "shape", axis)
    if role == "sits":
        _check_derived(entry, at, report)
        _check_sensor(entry, at, report)
        _check_temporal(entry.get("otb:temporal"), at + ("otb:temporal",), report)
    if role == "dates":
        _check_encoding(entry, at + ("otb:encoding",), report)
    if role == "valid" and "otb:min_valid" in entry:
        if view.unit == "pixel" or (dims and dims != ["batch", "time"]):
            report("for masks of the dates of patches only", *at, "otb:min_valid")


_DIM_ORDER = ("input", "dim_order")


def _check_of(i, entry, dims, inputs, view, report):
    """(number of steps, of bands) of the series that an input belongs to; None where unknown."""
    at = ("mlm:input", i)
    found = _series_of(entry, inputs)
    names = [e.get("name") for e in inputs.values() if e.get("otb:role") == "sits"]
    roles = [e.get("otb:role") for e in inputs.values()]
    known = None not in names and all(r in _SERIES_ROLES for r in roles)
    by_band = entry.get("otb:role") == "valid" and (dims is None or "bands" in dims)
    if entry.get("otb:role") == "valid" and entry.get("bands") and not by_band:
        report("given without the axis bands", *at, "bands")
    if found is None and not known:  # told already
        return None, None
    if found is None:
        if "otb:of" not in entry and len(names) > 1:
            report(f"required: there are {len(names)} inputs of role sits", *at, "otb:of")
        elif isinstance(entry.get("otb:of"), str) and entry["otb:of"] and names:
            report(f"{_short(entry['otb:of'])} is not an input of role sits", *at, "otb:of")
        return None, None
    series_dims, bands = _dims(found[1], view), found[1].get("bands")
    if by_band and dims and series_dims and dims != series_dims:
        report(f"{_short(dims)} is given, {_short(series_dims)} is expected", *at, *_DIM_ORDER)
    if by_band and dims and entry.get("bands") and _names(entry) != _names(found[1]):
        report("neither empty nor the bands of the series", *at, "bands")
    return _steps(found[1]), len(bands) if isinstance(bands, list) and bands else None


def _names(entry):
    bands = entry.get("bands")
    bands = bands if isinstance(bands, list) else []
    return [b.get("name") if isinstance(b, dict) else b for b in bands]


def _steps(entry):
    """Time steps that the network sees, 0 where they are free, None where they are not known."""
    temporal = entry.get("otb:temporal")
    policy, length = _field(temporal, "policy"), _field(temporal, "length")
    if policy == "any":
        return 0
    good = policy in ("fixed", "max") and _is_int(length) and 1 <= length <= 1000000
    return int(length) if good else None


def _is_derived(band):
    return isinstance(band, dict) and ("format" in band or "expression" in band)


def _check_derived(entry, at, report):
    bands = entry.get("bands")
    for k, band in enumerate(bands if isinstance(bands, list) else []):
        expression = band.get("expression") if _is_derived(band) else None
        if not isinstance(expression, list) or len(expression) != 2:
            continue
        for j, name in enumerate(expression):
            if not isinstance(name, str) or not name:
                continue
            other = [b for b, n in zip(bands, _names(entry)) if n == name]
            if not other or _is_derived(other[0]):
                text = f"{_short(name)} is not a band of this input, or computed itself"
                report(text, *at, "bands", k, "expression", j)


def _sensors(entry):
    """The sensors of the bands that are not computed; None where that is not known."""
    bands, sensor = entry.get("bands"), entry.get("otb:sensor", 1)
    if not isinstance(bands, list) or not bands:
        return None
    if isinstance(sensor, list):
        if len(sensor) != len(bands):
            return None
    else:
        sensor = [sensor] * len(bands)
    used = [s for s, b in zip(sensor, bands) if not _is_derived(b)]
    return used if all(_is_int(s) and 0 <= s <= 4 for s in used) else None


def _check_sensor(entry, at, report):
    bands, sensor = entry.get("bands"), entry.get("otb:sensor", 1)
    if isinstance(sensor, list) and isinstance(bands, list):
        if len(sensor) != len(bands):
            report(
                f"{len(sensor)} sensors are given, one or {len(bands)} (one a band) are expected",
                *at,
                "otb:sensor",
            )
            return
        for k, (number, band) in enumerate(zip(sensor, bands)):
            if not _is_derived(band) and not (_is_int(number) and 0 <= number <= 4):
                report(f"{_short(number)} is not an integer from 0 to 4", *at, "otb:sensor", k)
    used = _sensors(entry)
    if used is not None and not any(used):
        report("no band of a series (sensors 1 to 4)", *at, "otb:sensor")


def _check_sensors(p, inputs, known, report):
    series = [(i, _sensors(e)) for i, e in inputs if e.get("otb:role") == "sits"]
    by_index = dict(inputs)
    used = {int(s) for _, sensors in series for s in sensors or [] if s}
    if not known or not used or any(sensors is None for _, sensors in series):
        return
    listed = p.get("otb:sensors")
    if "otb:sensors" not in p:
        if used != set(range(1, max(used) + 1)):
            report(f"required: of the sensors only {sorted(used)} are used", "otb:sensors")
        return
    if not isinstance(listed, list):
        return
    if listed and len(listed) < max(used):
        report(f"{len(listed)} sensors are named, {max(used)} are used", "otb:sensors")
    names = [_field(s, "name") for s in listed]
    for k, name in enumerate(names):
        if isinstance(name, str) and name in names[:k]:
            report(f"{_short(name)} is used twice", "otb:sensors", k, "name")
    masked = set()
    for _, entry in inputs:
        dims = _field(entry, "input", "dim_order")
        if entry.get("otb:role") == "valid" and isinstance(dims, list) and "bands" in dims:
            found = _series_of(entry, by_index)
            if found:
                masked.add(found[0])
    for k, sensor in enumerate(listed):
        if _field(sensor, "optional") is True:
            if any(k + 1 in sensors and i not in masked for i, sensors in series):
                text = "an input that it brings bands to has no valid input with its axes"
                report(text, "otb:sensors", k, "optional")


def _day(text):
    """The date of a YYYY-MM-DD of the years 1900 to 2199, None if it is not one."""
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        date = datetime.date.fromisoformat(text)
    except ValueError:
        return None
    return date if 1900 <= date.year < 2200 else None


def _grid_day(text):
    """The same of a MM-DD too, in a year without 29 February."""
    return _day("2001-" + text if isinstance(text, str) and len(text) == 5 else text)


def _grid_count(start, end, step):
    """Number of dates of a grid (of MM-DD: as in a common year), None if it is wrong."""
    first, last = _grid_day(start), _grid_day(end)
    if first is None or last is None or len(start) != len(end) or not _is_int(step) or step < 1:
        return None
    days = (last - first).days
    if days < 0:
        if len(start) != 5:
            return None
        days += 365
    return days // int(step) + 1


def _check_temporal(temporal, at, report):
    grid = _field(temporal, "grid")
    if not isinstance(grid, dict):
        return
    start, end = grid.get("start"), grid.get("end")
    shaped = re.compile("([0-9]{4}-)?[0-9]{2}-[0-9]{2}")
    for key in ("start", "end"):
        text = grid.get(key)
        if isinstance(text, str) and shaped.match(text) and _grid_day(text) is None:
            report(f"{_short(text)} is not a date of 1900 to 2199, or of any year", *at, "grid", key)
    first, last = _grid_day(start), _grid_day(end)
    if first is None or last is None:
        return
    if len(start) != len(end):
        report(f"{_short(end)} does not have the form of start, {start}", *at, "grid", "end")
    elif last < first and len(start) == 10:
        report(f"{_short(end)} lies before start, {start}", *at, "grid", "end")
    steps, count = _steps({"otb:temporal": temporal}), _grid_count(start, end, grid.get("step"))
    if steps and count:
        fixed = temporal["policy"] == "fixed"
        if count > steps or (fixed and count < steps):
            least = "" if fixed else "at least "
            report(f"{steps} is given, {least}{count} (dates of the grid) expected", *at, "length")


def _check_encoding(entry, at, report):
    encoding = entry.get("otb:encoding")
    reference, pad = _field(encoding, "reference"), _field(encoding, "pad_value")
    if isinstance(reference, str) and re.match("[0-9]{4}-[0-9]{2}-[0-9]{2}$", reference):
        if _day(reference) is None:
            report(f"{_short(reference)} is not a date of 1900 to 2199", *at, "reference")
    if _field(entry, "input", "data_type") == "int64" and _is_number(pad) and not _is_int(pad):
        report(f"{pad:g} is not an integer, as the data_type is", *at, "pad_value")


def _series_output(i, entry, view, report):
    at = ("mlm:output", i)
    role, classes = entry.get("otb:role"), entry.get("classification:classes")
    _check_classes(classes, at, report)
    if role == "aux":
        return
    dims = _field(entry, "result", "dim_order")
    wanted = {"patch": [RESULT_DIMS], "pixel": [RESULT_DIMS[:2]]}
    wanted = wanted.get(view.unit, [RESULT_DIMS, RESULT_DIMS[:2]])
    if dims in (RESULT_DIMS, RESULT_DIMS[:2]) and dims not in wanted:
        report(
            f"{_short(dims)} is given, {_short(wanted[0])} is expected", *at, "result", "dim_order"
        )
    if dims in wanted:
        count = len(classes) if role in CLASS_ROLES and isinstance(classes, list) else 0
        shape = _field(entry, "result", "shape")
        _check_shape(
            shape, dims, count or None, view, "one a class", report, *at, "result", "shape"
        )


# ---------------------------------------------------------------------------------------------
# Change likelihood

_OF_SCHEDULE = ("linear_beta", "scaled_linear", "cosine", "table", "fm_linear", "edm")


def _known(value, words):
    return value if isinstance(value, str) and value in words else None


def _check_likelihood(p, inputs, outputs, view, report):
    kind, latent = likelihood_kind(p), is_latent(p)
    if kind is None:
        given = ", ".join(k for k in LIKELIHOOD_KINDS if k in p) or "none"
        report(f"exactly one of {', '.join(LIKELIHOOD_KINDS)} is needed, {given} given")
    _check_generative(p.get("otb:generative"), report)
    _check_masked(p.get("otb:masked"), view, report)
    _check_methods(p.get("otb:methods"), kind, view, report)
    scale, channels = _count(p, "encode", "scale"), _count(p, "encode", "channels")
    inner = view
    if latent:
        divides = scale and view.side and view.side % scale == 0
        inner = view._replace(side=view.side // scale if divides else None)
    for i, entry in inputs:
        _likelihood_input(i, entry, view, inner, channels if latent else None, report)
    for i, entry in outputs:
        _check_output(i, entry, inner, report)
    if kind is None:
        return
    _check_likelihood_inputs(p, kind, latent, inputs, report)
    if _roles_known(p, "mlm:output", "output"):
        _check_likelihood_outputs(p, kind, latent, inputs, outputs, report)


def _count(p, method, field):
    value = _field(p, "otb:methods", method, field)
    return int(value) if _is_int(value) and 1 <= value <= 1000000 else None


def _check_generative(g, report):
    if not isinstance(g, dict):
        return
    at = ("otb:generative",)
    schedule = g.get("schedule")
    if isinstance(schedule, dict):
        _check_schedule(schedule, (*at, "schedule"), report)
        schedule = schedule.get("type")
    kind, schedule = _known(g.get("kind"), FIELD_KINDS), _known(schedule, _OF_SCHEDULE)
    if kind and schedule and (kind == "edm") != (schedule == "edm"):
        report(f"{kind} with the schedule {schedule}: edm goes with edm", *at, "kind")
    if kind == "v_diffusion" and schedule == "fm_linear":
        report("v_diffusion needs alpha^2 + sigma^2 = 1: fm_linear is another", *at, "kind")
    if g.get("time") == "discrete_index" and schedule in ("fm_linear", "edm"):
        report(f"discrete_index needs a schedule with steps, not {schedule}", *at, "time")
    if g.get("time") == "continuous01" and schedule == "edm":
        report("continuous01 needs a schedule from data to noise: edm has no end", *at, "time")
    span = g.get("logsnr_range")
    if isinstance(span, list) and len(span) == 2 and all(map(_is_number, span)):
        if not span[0] < span[1]:
            report(f"{_short(span)} does not have its lower end first", *at, "logsnr_range")


def _check_schedule(schedule, at, report):
    start, end = schedule.get("beta_start", 1e-4), schedule.get("beta_end", 0.02)
    if all(_is_number(b) and 0 < b < 1 for b in (start, end)) and end < start:
        report(f"{end:g} is below beta_start, {start:g}", *at, "beta_end")
    table = schedule.get("alphas_cumprod")
    if isinstance(table, list):
        good = [_is_number(a) and 0 < a < 1 for a in table]
        for k in range(1, len(table)):
            if good[k - 1] and good[k] and not table[k] < table[k - 1]:
                report(f"{table[k]:g} is not below the one before", *at, "alphas_cumprod", k)


def _check_masked(masked, view, report):
    patch, groups = _field(masked, "patch"), _field(masked, "groups")
    if not _is_int(patch) or not 1 <= patch <= 1000000 or not view.side or view.side < 1:
        return
    if view.side % patch:
        text = f"{int(patch)} does not divide the patch of the tiling, {view.side}"
        report(text, "otb:masked", "patch")
        return
    tokens = (view.side // int(patch)) ** 2
    if _is_int(groups) and 1000000 >= groups > tokens:
        report(f"{int(groups)} is more than the tokens, {tokens}", "otb:masked", "groups")


def _check_methods(methods, kind, view, report):
    if not isinstance(methods, dict):
        return
    for name in ("encode", "decode", "features"):
        scale = _count({"otb:methods": methods}, name, "scale")
        if scale and view.side and view.side >= 1 and view.side % scale:
            text = f"{scale} does not divide the patch of the tiling, {view.side}"
            report(text, "otb:methods", name, "scale")
    if "decode" in methods and "encode" not in methods:
        report("decode without encode", "otb:methods", "decode")
    if "encode" in methods and kind not in (None, "otb:generative"):
        report(f"encode with {kind}: it is of otb:generative", "otb:methods", "encode")


def _likelihood_input(i, entry, view, inner, channels, report):
    at = ("mlm:input", i)
    role, count = entry.get("otb:role"), _check_bands(entry, at, report)
    shape = _field(entry, "input", "shape")
    any_number = shape[1] if isinstance(shape, list) and len(shape) > 1 else None
    dims, wanted, why, of = None, None, "one a band", view
    if role in ("image", "condition"):
        dims, wanted = IMAGE_DIMS, count or any_number
    elif role == "regression":
        dims, wanted = IMAGE_DIMS, 4 * count if count else any_number
        why = REGRESSION_CHANNELS
    elif role in ("latent", "condition_latent"):
        dims, wanted, why, of = BANDLESS[role], channels, "the channels of encode", inner
    elif isinstance(role, str) and role in BANDLESS:
        dims, wanted, why = BANDLESS[role], 1, "a mask"
    if dims:
        _check_shape(shape, dims, wanted, of, why, report, *at, "input", "shape")
    if role != "regression" and not (isinstance(role, str) and role in BANDLESS):
        _check_scalings(entry, count, at, report)


def _check_likelihood_inputs(p, kind, latent, inputs, report):
    needed = {
        "otb:generative": ["image", "diffusion_time"] + (["latent"] if latent else []),
        "otb:masked": ["image", "token_mask"],
        "otb:ratio": ["regression"],
        "otb:features": ["image"],
    }[kind]
    allowed = list(needed)
    if kind == "otb:generative":
        allowed += ["condition_latent" if latent else "condition", "condition_flag"]
    elif kind == "otb:masked":
        allowed.append("condition")
    told = f"change-likelihood with {kind}" + (" and the method encode" if latent else "")
    known = set(_schema()["definitions"]["input"]["properties"]["otb:role"]["enum"])
    first, all_known = {}, _roles_known(p, "mlm:input", "input")
    time = _known(
        _field(p, "otb:generative", "time"), ("continuous01", "discrete_index", "logsnr", "sigma")
    )
    for i, entry in inputs:
        role, at = entry.get("otb:role"), ("mlm:input", i)
        if not isinstance(role, str) or role not in known:
            continue
        if role not in allowed:
            text = f"{told} takes {', '.join(sorted(allowed))}, {role} is given"
            report(text, *at, "otb:role")
        elif role in first:
            report(f"{role} is declared twice", *at, "otb:role")
        else:
            first[role] = (i, entry)
        if role in ("condition", "condition_latent"):
            null = entry.get("otb:null")
            if kind == "otb:generative" and "otb:null" not in entry:
                report("required, and missing", *at, "otb:null")
            if kind == "otb:masked" and null in ("zeros", "flag"):
                report(f"{null}: a masked autoencoder has none", *at, "otb:null")
        argument = entry.get("otb:argument", True)
        if role == "image" and isinstance(argument, bool):
            if argument == latent:
                text = "false is expected: encode takes the image" if latent else "not of encode"
                report(text, *at, "otb:argument")
            elif not argument and i != len(p["mlm:input"]) - 1:
                report("an input that is no argument is the last one", *at, "otb:argument")
        if role == "diffusion_time" and time and time != "discrete_index":
            if _field(entry, "input", "data_type") == "int64":
                report("int64 is for discrete_index only", *at, "input", "data_type")
    for role in needed:
        if all_known and role not in first:
            report(f"{told} needs an input of role {role}", "mlm:input")
    _check_condition(kind, latent, first, all_known, report)
    image = first.get("image")
    decoded = _count(p, "decode", "channels")
    if image and decoded:
        bands = image[1].get("bands")
        if isinstance(bands, list) and bands and decoded != len(bands):
            text = f"{decoded} is given, {len(bands)} (one a band) is expected"
            report(text, "otb:methods", "decode", "channels")


def _check_condition(kind, latent, first, all_known, report):
    image = first.get("image")
    i, condition = first.get("condition", (None, None))
    if condition and image and _names(condition) and _names(image[1]):
        scalings = [_reduced(e) for e in (condition, image[1])]
        name = _short(image[1].get("name"))
        if _names(condition) != _names(image[1]):
            report(f"not the bands of {name}", "mlm:input", i, "bands")
        elif None not in scalings and scalings[0] != scalings[1]:
            report(f"not the scaling of {name}", "mlm:input", i, "value_scaling")
    if kind != "otb:generative":
        return
    condition = first.get("condition_latent" if latent else "condition", (None, None))[1]
    absent = "none" if all_known else None
    null = condition.get("otb:null") if condition else absent
    flag = first.get("condition_flag")
    if null == "flag" and all_known and not flag:
        report("an input of role condition_flag is needed: otb:null is flag", "mlm:input")
    if null in ("none", "zeros") and flag:
        text = "goes with a condition whose otb:null is flag"
        report(text, "mlm:input", flag[0], "otb:role")


def _reduced(entry):
    """(low, high, offset, divisor) of each band, as a network sees it; None where that is wrong."""
    scalings, count = entry.get("value_scaling"), len(_names(entry))
    if "value_scaling" not in entry or not isinstance(scalings, (list, type(None))):
        return None
    reduced = []
    for scaling in scalings or [{"type": "offset", "value": 0}]:
        get = scaling.get if isinstance(scaling, dict) else lambda key: None
        kind, low, high, value = (get(k) for k in ("type", "minimum", "maximum", "value"))
        row = {
            "min-max": (low, high),
            "z-score": (get("mean"), get("stddev")),
            "clip": (low, high),
            "clip-min": (low,),
            "clip-max": (high,),
            "offset": (value,),
            "scale": (value,),
        }.get(kind if isinstance(kind, str) else None)
        if row is None or not all(map(_is_number, row)):
            return None
        if kind.startswith("clip"):
            low = -math.inf if kind == "clip-max" else low
            high = math.inf if kind == "clip-min" else high
            reduced.append((low, high, 0, 1))
        else:
            offset, divisor = {"offset": (value, 1), "scale": (0, value)}.get(kind, row * 2)[:2]
            divisor = high - low if kind == "min-max" else divisor
            reduced.append((-math.inf, math.inf, offset, divisor))
    if len(reduced) == 1:
        reduced *= count
    return reduced if len(reduced) == count else None


def _check_likelihood_outputs(p, kind, latent, inputs, outputs, report):
    roles = {"otb:masked": ["reconstruction"], "otb:ratio": ["log_ratio"]}.get(kind, ["features"])
    if kind == "otb:generative":
        field = _known(_field(p, kind, "kind"), FIELD_KINDS)
        roles = [field] if field else FIELD_KINDS
    images = [e for _, e in inputs if e.get("otb:role") == "image"]
    wanted = {"otb:ratio": 1, "otb:features": _field(p, kind, "channels")}.get(kind)
    if kind in ("otb:generative", "otb:masked"):
        wanted = _count(p, "encode", "channels") if latent else len(_names((images or [{}])[0]))
        wanted = (wanted or 0) * (2 if _field(p, kind, "predicts_var") is True else 1)
    seen = wrong = False
    for i, entry in outputs:
        role, at = entry.get("otb:role"), ("mlm:output", i)
        if role == "aux":
            continue
        if role not in roles:
            wrong = True
            report(f"{role} is given, {', '.join(roles)} or aux is expected", *at, "otb:role")
            continue
        if seen:
            report("one output is enough", *at, "otb:role")
        seen = True
        shape = _shape_at(entry, "result")
        if shape and _is_int(wanted) and wanted > 0 and shape[1] > 0 and shape[1] != wanted:
            text = f"{int(shape[1])} is given, {int(wanted)} is expected for {role}"
            report(text, *at, "result", "shape", 1)
    if not seen and not wrong:
        report(f"change-likelihood with {kind} needs an output of role {roles[0]}", "mlm:output")
