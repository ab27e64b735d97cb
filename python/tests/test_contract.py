"""The contract: every class of violation, the builder, and the order of reading."""

import copy
import json
import os
import subprocess
import sys
import zipfile

import pytest

from otbtorch import contract as contracts
from otbtorch.contract import ContractError, change_detection, output, read, validate, z_score

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
P = "/properties"
CLASSES = [(1, "a", "000000"), (2, "b", "FFFFFF")]


def good(outputs=None, **options):
    fields = dict(patch=64, halo=8, multiple=4, license="CC0-1.0", training_data="none")
    fields.update(options)
    scaling = z_score([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])
    return change_detection("m", ["r", "g", "b"], scaling, outputs=outputs, **fields)


def semantic():
    return good(
        [
            output("c", "change_logits"),
            output("s1", "sem1_logits", classes=CLASSES),
            output("s2", "sem2_logits", classes=CLASSES),
        ]
    )


def edit(path, value, contract=None):
    """A contract with one field set, or removed (``...``)."""
    contract = good() if contract is None else contract
    parts = [int(p) if p.isdigit() else p for p in path.strip("/").split("/")]
    place = contract
    for part in parts[:-1]:
        place = place[part]
    if value is ...:
        del place[parts[-1]]
    else:
        place[parts[-1]] = value
    return contract


def paths(contract):
    return [v.path for v in validate(contract)]


def test_matching_is_forbidden_by_one_word():
    assert "otb:radiometric_matching" not in good()["properties"]
    contract = good(radiometric_matching=False)
    assert contract["properties"]["otb:radiometric_matching"] is False
    assert validate(contract) == []
    assert paths(edit(f"{P}/otb:radiometric_matching", 1)) == [f"{P}/otb:radiometric_matching"]


def test_valid():
    assert validate(good()) == []
    assert validate(semantic()) == []
    assert validate(good([output("t", "transition_logits", classes=CLASSES)])) == []
    assert validate(good([output("p", "change_probability")], blend="hann", halo=500)) == []
    with open(os.path.join(ROOT, "doc", "examples", "change-detection.mlm.json")) as stream:
        assert validate(json.load(stream)) == []


@pytest.mark.parametrize("scaling", [None, [], z_score(1, 2)])
def test_scaling_none_or_one_for_all(scaling):
    assert validate(edit(f"{P}/mlm:input/0/value_scaling", scaling)) == []


def test_free_sizes_and_band_objects():
    contract = edit(f"{P}/mlm:input/0/input/shape", [-1, 3, -1, -1])
    contract = edit(f"{P}/mlm:input/0/bands/1", {"name": "g"}, contract)
    contract = edit(f"{P}/mlm:input/0/bands/2", {"name": "b"}, contract)
    assert validate(contract) == []


I0, O0, T = f"{P}/mlm:input/0", f"{P}/mlm:output/0", f"{P}/otb:tiling"
# (field, value, path of the violation where it is not the field)
CASES = [
    ("/type", "Item", None),
    ("/type", ..., None),
    ("/id", "", None),
    ("/id", ..., None),
    ("/properties", None, None),
    ("/otb:version", "1.0.0", None),
    (f"{P}/mlm:name", ..., None),
    (f"{P}/mlm:architecture", None, None),
    (f"{P}/mlm:tasks", [], None),
    (f"{P}/mlm:input", ..., None),
    (f"{P}/mlm:output", {}, None),
    (f"{P}/otb:version", ..., None),
    (f"{P}/otb:version", "2.0.0", None),
    (f"{P}/otb:version", "1", None),
    (f"{P}/otb:task", "segmentation", None),
    (f"{P}/otb:tilling", {}, None),
    (f"{P}/otb:method/forward", ["x1"], None),
    (f"{P}/otb:method/forward", ["x1", "x3"], None),
    (f"{P}/otb:method/forward", ["x1", "x1"], None),
    (f"{P}/otb:method/backward", [], None),
    (f"{I0}/name", "x2", f"{P}/mlm:input/1/name"),
    (f"{I0}/name", ..., None),
    (f"{I0}/bands", [], None),
    (f"{I0}/bands", ..., None),
    (f"{I0}/bands/1", "r", None),
    (f"{I0}/bands/1", {"otb:name": "g", "name": "g"}, f"{I0}/bands/1/otb:name"),
    (f"{I0}/bands/1", {}, f"{I0}/bands/1/name"),
    (f"{I0}/input", None, None),
    (f"{I0}/input/otb:dtype", "float32", None),
    (f"{I0}/input/data_type", "uint16", None),
    (f"{I0}/input/data_type", ..., None),
    (f"{I0}/input/dim_order", ["batch", "height", "width", "bands"], None),
    (f"{I0}/input/shape/0", 1, None),
    (f"{I0}/input/shape/1", 4, None),
    (f"{I0}/input/shape/2", 32, None),
    (f"{I0}/input/shape/3", 0, None),
    (f"{I0}/input/shape", [-1, 3, 64], None),
    (f"{I0}/input/shape", ..., None),
    (f"{I0}/value_scaling", ..., None),
    (f"{I0}/value_scaling", {}, None),
    (f"{I0}/value_scaling", z_score([1, 2], [3, 4]), None),
    (f"{I0}/value_scaling/1", None, None),
    (f"{I0}/value_scaling/1/type", "processing", None),
    (f"{I0}/value_scaling/1/type", "zscore", None),
    (f"{I0}/value_scaling/1/stddev", 0, None),
    (f"{I0}/value_scaling/1/stddev", -1.0, None),
    (f"{I0}/value_scaling/1/stddev", ..., None),
    (f"{I0}/value_scaling/1/mean", None, None),
    (f"{I0}/value_scaling/1/mean", float("nan"), None),
    (f"{I0}/value_scaling/1/otb:unit", "dn", None),
    (
        f"{I0}/value_scaling/1",
        {"type": "min-max", "minimum": 1, "maximum": 1},
        f"{I0}/value_scaling/1/maximum",
    ),
    (
        f"{I0}/value_scaling/1",
        {"type": "clip", "minimum": 2, "maximum": 1},
        f"{I0}/value_scaling/1/maximum",
    ),
    (f"{I0}/value_scaling/1", {"type": "clip-min"}, f"{I0}/value_scaling/1/minimum"),
    (f"{I0}/value_scaling/1", {"type": "clip-max"}, f"{I0}/value_scaling/1/maximum"),
    (f"{I0}/value_scaling/1", {"type": "offset"}, f"{I0}/value_scaling/1/value"),
    (f"{I0}/value_scaling/1", {"type": "scale", "value": 0}, f"{I0}/value_scaling/1/value"),
    (f"{I0}/otb:role", ..., None),
    (f"{I0}/otb:role", "picture", None),
    (f"{I0}/otb:role", "static", f"{P}/mlm:input"),
    (f"{I0}/otb:date", ..., None),
    (f"{I0}/otb:date", 3, None),
    (f"{I0}/otb:date", 2, f"{P}/mlm:input/1/otb:date"),
    (f"{I0}/otb:nodata", "0", None),
    (f"{I0}/otb:nodata_rule", "most", None),
    (f"{I0}/otb:nodata_fill", None, None),
    (f"{I0}/otb:no_data", 0, None),
    (f"{O0}/name", ..., None),
    (f"{O0}/otb:role", ..., None),
    (f"{O0}/otb:role", "change", None),
    (f"{O0}/otb:role", "aux", f"{P}/mlm:output"),
    (f"{O0}/otb:rule", "change_logits", None),
    (f"{O0}/result", ..., None),
    (f"{O0}/result/dim_order", ["batch", "bands", "height", "width"], None),
    (f"{O0}/result/shape/1", 3, None),
    (f"{O0}/result/shape/1", -1, None),
    (f"{O0}/result/shape/2", 32, None),
    (f"{O0}/classification:classes/1/value", 0, None),
    (f"{O0}/classification:classes/1/value", -1, None),
    (f"{O0}/classification:classes/1/value", ..., None),
    (f"{O0}/classification:classes/1/name", "no-change", None),
    (f"{O0}/classification:classes/1/color_hint", "#E03C31", None),
    (f"{T}", ..., None),
    (f"{T}/patch", ..., None),
    (f"{T}/patch", 4, None),
    (f"{T}/patch", 64.5, None),
    (f"{T}/patch", True, None),
    (f"{T}/patch", None, None),
    (f"{T}/multiple", 0, None),
    (f"{T}/multiple", 24, f"{T}/patch"),
    (f"{T}/halo", ..., None),
    (f"{T}/halo", -1, None),
    (f"{T}/halo", 29, None),
    (f"{T}/halo", 32, None),
    (f"{T}/blend", "linear", None),
    (f"{T}/tta", ["d8"], f"{T}/tta/0"),
    (f"{T}/tta", ["d4", "d4"], None),
    (f"{T}/overlap", 4, None),
    (f"{P}/otb:calibration/temperature", 0, None),
    (f"{P}/otb:calibration/threshold", 1, None),
    (f"{P}/otb:calibration/threshold", None, None),
    (f"{P}/otb:calibration/bias", 1, None),
    (f"{P}/otb:provenance", ..., None),
    (f"{P}/otb:provenance/license", ..., None),
    (f"{P}/otb:provenance/training_data", "", None),
    (f"{P}/otb:provenance/gsd_m", 0, None),
    (f"{P}/otb:provenance/gsd", 10, None),
    ("/assets/model/otb:sha256", "0", None),
]


@pytest.mark.parametrize("field,value,path", CASES)
def test_violation(field, value, path):
    found = paths(edit(field, value))
    assert (path or field) in found, found
    # One mistake is one violation, but for those that have two sides.
    two_sides = (f"{I0}/bands", f"{P}/otb:method/forward", f"{I0}/name", f"{I0}/otb:date")
    if field not in two_sides and field not in (f"{T}/patch", f"{O0}/otb:role", f"{I0}/otb:role"):
        assert len(found) == 1, found


def test_hann_needs_half_patches():
    assert paths(good(blend="hann", multiple=4, patch=68, halo=0)) == [f"{T}/patch"]
    assert paths(good(blend="hann", multiple=1, patch=63, halo=0)) == [f"{T}/patch"]


def test_semantic_outputs():
    without = semantic()
    del without["properties"]["mlm:output"][2]
    assert paths(without) == [f"{P}/mlm:output/1/otb:role"]
    alone = semantic()
    del alone["properties"]["mlm:output"][0]
    assert paths(alone) == [f"{P}/mlm:output"]
    channels = edit(f"{P}/mlm:output/1/result/shape/1", 3, semantic())
    assert paths(channels) == [f"{P}/mlm:output/1/result/shape/1"]
    missing = edit(f"{P}/mlm:output/2/classification:classes", ..., semantic())
    assert paths(missing) == [f"{P}/mlm:output/2/classification:classes"]
    differ = semantic()
    differ["properties"]["mlm:output"][2] = {
        **differ["properties"]["mlm:output"][2],
        "classification:classes": [{"value": 1, "name": "a"}],
    }
    assert f"{P}/mlm:output/2/classification:classes" in paths(differ)
    repeated = edit(f"{P}/mlm:output/2/name", "s1", semantic())
    assert paths(repeated) == [f"{P}/mlm:output/2/name"]


def test_transition_channels():
    contract = good([output("t", "transition_logits", classes=CLASSES)])
    assert contract["properties"]["mlm:output"][0]["result"]["shape"][1] == 5
    assert paths(edit(f"{O0}/result/shape/1", 4, contract)) == [f"{O0}/result/shape/1"]


def test_two_change_outputs():
    contract = good([output("c", "change_logits"), output("p", "change_probability")])
    assert paths(contract) == [f"{P}/mlm:output"]


def test_all_at_once_and_no_crash_on_garbage():
    contract = good()
    fields = [c for c in CASES if c[1] is not ... and c[0].count("/") > 3][::7]
    for field, value, _ in fields:
        try:
            edit(field, value, contract)
        except (KeyError, TypeError, IndexError):
            pass
    assert len(validate(contract)) >= 4
    for garbage in (None, [], 1, "x", {}, {"properties": []}, {"properties": {"mlm:input": [1]}}):
        assert validate(garbage)
    deep = good()
    for key in list(deep["properties"]):
        for value in (None, 1, "x", [], {}, [None], [[]], [{}]):
            broken = copy.deepcopy(deep)
            broken["properties"][key] = value
            validate(broken)


def test_schema_is_draft_7():
    import jsonschema

    jsonschema.Draft7Validator.check_schema(contracts.schema())


def archive(path, text, code=True):
    with zipfile.ZipFile(path, "w") as stream:
        stream.writestr("m/data.pkl", "")
        if code:
            stream.writestr("m/code/__torch__.py", "")
        if text is not None:
            stream.writestr("m/extra/mlm.json", text)


def test_read_order(tmp_path):
    model = tmp_path / "change.pt"
    archive(model, '{"id": "embedded"}')
    assert read(model).data == {"id": "embedded"}
    (tmp_path / "change.mlm.json").write_text('{"id": "second"}')
    assert read(model).data == {"id": "second"}
    (tmp_path / "change.pt.mlm.json").write_text('{"id": "first"}')
    assert read(model).data == {"id": "first"}
    assert read(model).source.endswith("change.pt.mlm.json")
    (tmp_path / "other.json").write_text('{"id": "given"}')
    assert read(model, tmp_path / "other.json").data == {"id": "given"}
    (tmp_path / "change.pt.mlm.json").write_text("{")
    with pytest.raises(ContractError, match="invalid JSON"):
        read(model)
    with pytest.raises(ContractError, match="No such file"):
        read(model, tmp_path / "absent.json")


@pytest.mark.parametrize(
    "content,message",
    [
        (b"", "empty"),
        (b"hello, world", "not a zip"),
        (b"PK\x03\x04 and no more", "truncated"),
    ],
)
def test_read_broken_archives(tmp_path, content, message):
    model = tmp_path / "m.pt"
    model.write_bytes(content)
    with pytest.raises(ContractError, match=message):
        read(model)


@pytest.mark.parametrize(
    "text,code,message",
    [
        (None, True, "no contract"),
        (None, False, "no code"),
        ("{", True, "invalid JSON"),
        ("[1]", True, "a list"),
        ('{"a": NaN}', True, "NaN"),
        ('{"a": 1, "a": 2}', True, "given twice: a"),
        (b"\xff\xfe\x00", True, "invalid JSON"),
    ],
)
def test_read_broken_contracts(tmp_path, text, code, message):
    archive(tmp_path / "m.pt", text, code)
    with pytest.raises(ContractError, match=message):
        read(tmp_path / "m.pt")


def test_damaged_member(tmp_path):
    model = tmp_path / "m.pt"
    archive(model, '{"id": "some contract"}')
    raw = model.read_bytes()
    assert raw.count(b"some contract") == 1
    model.write_bytes(raw.replace(b"some contract", b"same contract"))
    with pytest.raises(ContractError, match="damaged"):
        read(model)


def test_missing_model(tmp_path):
    with pytest.raises(ContractError, match="No such file"):
        read(tmp_path / "absent.pt")


def test_torch_is_not_imported():
    code = (
        "import sys, otbtorch, otbtorch.contract, otbtorch.__main__; otbtorch.validate({});"
        "assert 'torch' not in sys.modules"
    )
    path = os.path.join(ROOT, "python")
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
