"""The parameter file: what iota2's own configuration has no place for. JSON."""

import copy
import difflib
import json
import os
import pathlib

from . import complaint

FILE = "otbtorch.json"
VARIABLE = "OTBTORCH_IOTA2"

SENTINEL2 = ["B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12"]
# iota2 appends its indices, each for all dates, to the bands of all dates.
INDICES = ["NDVI", "NDWI", "Brightness"]

# What iota2 leaves in features/<tile>/tmp with write_outputs: (stack, dates, validity).
SERIES = {
    "gapfilled": ("{name}_{tile}_TSG.tif", "{name}_{tile}_interpolation_dates.txt", None),
    "raw": ("{name}_{tile}_TS.tif", "{name}_{tile}_input_dates.txt", "{name}_{tile}_MASKS.tif"),
    "features": ("{name}_{tile}_Features.tif", "{name}_{tile}_interpolation_dates.txt", None),
}
STATISTICS = ("mean", "std", "min", "max", "count")

# Options of the application that the step sets itself.
RESERVED = (
    {"in", "out", "confmap", "probamap", "features", "featurestype", "mask", "nodatalabel", "model", "ram", "legend"}
    | {f"{key}{n}" for key in ("il", "dates", "bands", "maskl", "masktype") for n in ("", "2", "3", "4")}
    | {"datesfrom", "nbclasses", "entropy", "margin", "mutual", "nvalid", "contract", "imstat", "progress", "help"}
)

DEFAULTS = {
    "model": "model/model_{model}_seed_{seed}.pt",
    "sensors": [{"name": "Sentinel2"}],
    "labels": None,
    "probability": None,
    "chunks": 1,
    "keep": True,
    "keep_chunks": False,
    "ram": None,
    "threads": None,
    "bin": None,
    "execution": None,
    "resources": "classifications",
    "options": {},
    "embedding": None,
    "objects": None,
}
SENSOR = {"name": None, "series": "gapfilled", "stack": None, "dates": None, "masks": None, "masktype": None, "bands": None}
EMBEDDING = {"model": None, "raster": "features/{tile}/tmp/{tile}_embedding.tif", "type": "float"}
OBJECTS = {
    "segmentation": None,
    "table": "features/{tile}/{tile}_objects.gpkg",
    "statistics": ["mean", "std"],
    "prefix": "",
    "labels": "features/{tile}/{tile}_objects_stats_label.txt",
}


def _known(given, defaults, where):
    if not isinstance(given, dict):
        raise complaint(where, repr(given), "an object { ... }")
    for key in given:
        if key not in defaults:
            close = difflib.get_close_matches(key, defaults, 1)
            hint = f'Is "{close[0]}" meant?' if close else ""
            raise complaint(where, f'"{key}"', "some of " + ", ".join(defaults), hint)
    return {**copy.deepcopy(defaults), **copy.deepcopy(given)}


def _whole(value, name, least):
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise complaint(name, json.dumps(value), f"an integer of {least} or more")


def _pattern(text, name, fields):
    """A file name with its fields in braces."""
    if not isinstance(text, str) or not text:
        raise complaint(name, json.dumps(text), "the name of a file")
    try:
        text.format(**dict.fromkeys(fields, "x"))
    except (KeyError, IndexError, ValueError) as error:
        raise complaint(name, f'"{text}"', "no other fields than " + ", ".join(f"{{{f}}}" for f in fields)) from error
    return text


def _words(value, name, among=None):
    if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
        raise complaint(name, json.dumps(value), "a list of words")
    for word in value:
        if among and word not in among:
            raise complaint(name, f'"{word}"', "some of " + ", ".join(among))


def _sensor(given, at):
    sensor = _known(given, SENSOR, at)
    if not isinstance(sensor["name"], str) or not sensor["name"]:
        raise complaint(f"{at}.name", json.dumps(sensor["name"]), "iota2's name of the sensor, such as Sentinel2")
    if sensor["series"] not in SERIES:
        raise complaint(f"{at}.series", json.dumps(sensor["series"]), "one of " + ", ".join(SERIES))
    preset = [n and "features/{tile}/tmp/" + n.replace("{name}", sensor["name"]) for n in SERIES[sensor["series"]]]
    for key, name in zip(("stack", "dates", "masks"), preset):
        if sensor[key] is None:
            # Validity of iota2's own stack: of another one it must be said.
            sensor[key] = name if key != "masks" or given.get("stack") is None else None
        if sensor[key] is not None:
            _pattern(sensor[key], f"{at}.{key}", ["tile"])
    if sensor["masktype"] not in (None, "invalid", "valid", "scl"):
        raise complaint(f"{at}.masktype", json.dumps(sensor["masktype"]), "invalid, valid or scl")
    if sensor["bands"] is not None:
        _words(sensor["bands"], f"{at}.bands")
    elif sensor["name"] == "Sentinel2" and given.get("stack") is None:
        sensor["bands"] = SENTINEL2 + (["|"] + INDICES if sensor["series"] == "features" else [])
    return sensor


def check(given):
    """The parameters, whole and checked, as plain values that travel to workers.

    :param given: what the file holds; what it leaves out has a default
    :raises Iota2Error: with the name of the parameter
    """
    p = _known(given, DEFAULTS, "parameters")
    _pattern(p["model"], "model", ["model", "seed"])
    if not isinstance(p["sensors"], list) or not 1 <= len(p["sensors"]) <= 4:
        raise complaint("sensors", json.dumps(p["sensors"]), "a list of 1 to 4 sensors")
    p["sensors"] = [_sensor(s, f"sensors[{k}]") for k, s in enumerate(p["sensors"])]
    if p["labels"] is not None:
        labels = p["labels"]
        if not isinstance(labels, list) or not labels:
            raise complaint("labels", json.dumps(labels), "a list of integers")
        for label in labels:
            _whole(label, "labels", 1)
        if max(labels) > 65535:
            raise complaint("labels", max(labels), "labels of 16 bits")
        p["labels"] = sorted(set(labels))
    for key in ("keep", "keep_chunks", "probability"):
        if not isinstance(p[key], bool) and not (key == "probability" and p[key] is None):
            raise complaint(key, json.dumps(p[key]), "true or false")
    _whole(p["chunks"], "chunks", 1)
    for key in ("ram", "threads"):
        if p[key] is not None:
            _whole(p[key], key, 1)
    if p["execution"] not in (None, "local", "cluster"):
        raise complaint("execution", json.dumps(p["execution"]), "local or cluster")
    if p["bin"] is not None and not isinstance(p["bin"], str):
        raise complaint("bin", json.dumps(p["bin"]), "the folder of otbcli_TimeSeriesClassify")
    if not isinstance(p["options"], dict):
        raise complaint("options", json.dumps(p["options"]), "an object { ... }")
    for key in p["options"]:
        if key in RESERVED:
            raise complaint(
                "options", f'"{key}"', "options that the step does not set itself", "Those are " + ", ".join(sorted(RESERVED)) + "."
            )
    if "static" in p["options"]:
        static = p["options"]["static"]
        if not isinstance(static, str):
            _words(static, "options.static")
        for name in [static] if isinstance(static, str) else static:
            _pattern(name, "options.static", ["tile"])
    if "classes" in p["options"] and p["labels"] is None:
        raise complaint("labels", "nothing", "the labels of the map, because options.classes changes them")
    if p["embedding"] is not None:
        p["embedding"] = _known(p["embedding"], EMBEDDING, "embedding")
        _pattern(p["embedding"]["model"], "embedding.model", ["tile"])
        _pattern(p["embedding"]["raster"], "embedding.raster", ["tile"])
        if p["embedding"]["type"] not in ("float", "int8"):
            raise complaint("embedding.type", json.dumps(p["embedding"]["type"]), "float or int8")
    if p["objects"] is not None:
        o = p["objects"] = _known(p["objects"], OBJECTS, "objects")
        if p["embedding"] is None:
            raise complaint("embedding", "nothing", "the model whose embedding describes the objects")
        if p["embedding"]["type"] != "float":
            raise complaint("embedding.type", '"int8"', '"float": statistics of codes mean nothing')
        for key in ("segmentation", "table", "labels"):
            _pattern(o[key], f"objects.{key}", ["tile"])
        _words(o["statistics"], "objects.statistics", STATISTICS)
        if not isinstance(o["prefix"], str):
            raise complaint("objects.prefix", json.dumps(o["prefix"]), "a word")
    return p


def read(path):
    """The parameters of a file. Raises Iota2Error: no such file, no JSON, or what :func:`check` finds."""
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise complaint("parameters", f'"{path}", which cannot be read ({error.strerror})', "a JSON file") from error
    try:
        given = json.loads(text)
    except ValueError as error:
        raise complaint("parameters", f'"{path}", which is no JSON ({error})', "a JSON file") from error
    return check(given)


def find(configuration):
    """The parameters that go with a configuration of iota2.

    The file that the variable OTBTORCH_IOTA2 names, else ``otbtorch.json`` beside the
    configuration, else all defaults.
    """
    if os.environ.get(VARIABLE):
        return read(os.environ[VARIABLE])
    beside = pathlib.Path(os.fspath(configuration)).resolve().parent / FILE
    return read(beside) if beside.exists() else check({})
