# Copyright (C) 2026 the OTBTorch authors
#
# Licensed under the Apache License, Version 2.0: see LICENSE.
"""The two readers of the contract, C++ and Python, find the same violations.

OTBDL_VALIDATE is the path of the helper otbdlValidate. Needs python3-jsonschema, not torch.
"""

import copy
import json
import os
import pathlib
import random
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from otbtorch.contract import validate  # noqa: E402

TABLE = json.loads((pathlib.Path(__file__).parent / "contract-mutations.json").read_text())


def example(name):
    return json.loads((ROOT / "doc" / "examples" / f"{name}.mlm.json").read_text())


def parts(pointer):
    return [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]


def place(document, pointer):
    """(container, key) of a JSON pointer."""
    *way, last = parts(pointer)
    for part in way:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document, int(last) if isinstance(document, list) else last


def put(document, pointer, value):
    holder, key = place(document, pointer)
    if isinstance(holder, list) and key == len(holder):
        holder.append(copy.deepcopy(value))
    else:
        holder[key] = copy.deepcopy(value)


def mutated(line):
    base = line.get("base", "example")
    contract = example(TABLE["examples"].get(base, "change-detection"))
    sets = dict(TABLE["bases"][base])
    for pointer, value in [*sets.items(), *line.get("set", {}).items()]:
        put(contract, pointer, value)
    for pointer in line.get("remove", []):
        holder, key = place(contract, pointer)
        del holder[key]
    return contract


def by_python(contract):
    return {v.path or "/" for v in validate(contract)}


def by_cxx(contracts, folder):
    """The sets of paths that the C++ reader finds, in one run."""
    files = []
    for k, contract in enumerate(contracts):
        files.append(str(folder / f"{k}.json"))
        pathlib.Path(files[-1]).write_text(json.dumps(contract))
    done = subprocess.run(
        [os.environ["OTBDL_VALIDATE"], *files], check=True, stdout=subprocess.PIPE, text=True
    )
    found = []
    for text in done.stdout.splitlines():
        if text.startswith("  "):
            found[-1].add(text[2:])
        else:
            found.append(set())
    assert len(found) == len(files)
    return found


@pytest.fixture(scope="module")
def cxx(tmp_path_factory):
    lines = TABLE["valid"] + TABLE["invalid"]
    sets = by_cxx(map(mutated, lines), tmp_path_factory.mktemp("table"))
    return {line["name"]: paths for line, paths in zip(lines, sets)}


@pytest.mark.parametrize("line", TABLE["valid"], ids=lambda line: line["name"])
def test_both_accept(line, cxx):
    assert by_python(mutated(line)) == set()
    assert cxx[line["name"]] == set()


@pytest.mark.parametrize("line", TABLE["invalid"], ids=lambda line: line["name"])
def test_both_refuse_for_the_same_fields(line, cxx):
    found, wanted = by_python(mutated(line)), set(line["paths"])
    assert cxx[line["name"]] == wanted
    if line.get("stricter"):
        assert found <= wanted
    else:
        assert found == set(line.get("python", wanted))


VALUES = [None, True, 0, 1, -1, 2, 7, 0.5, "", "image", "hann", "x1", [], [None], {}, {"a": 1}]
VALUES += ["sits", "valid", "pixel", "any", "grid", "s1", 25, 40, [-1, 25], ["batch", "time"]]


def nodes(value, at=""):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        pointer = at + "/" + str(key).replace("~", "~0").replace("/", "~1")
        yield pointer
        if isinstance(item, (dict, list)):
            yield from nodes(item, pointer)


def test_both_accept_and_refuse_the_same_random_mistakes(tmp_path):
    """One random node removed or replaced: the verdict is the same, whatever the paths."""
    generator = random.Random(1)
    contracts = []
    for trial in range(1500):
        contract = mutated({"base": list(TABLE["bases"])[trial % len(TABLE["bases"])]})
        holder, key = place(contract, generator.choice(list(nodes(contract))))
        if generator.random() < 0.3:
            del holder[key]
        else:
            holder[key] = generator.choice(VALUES)
        contracts.append(contract)
    found = by_cxx(contracts, tmp_path)
    differ = [
        (sorted(by_python(c)), sorted(f))
        for c, f in zip(contracts, found)
        if bool(by_python(c)) != bool(f)
    ]
    assert differ == []
    assert 50 < sum(map(bool, found)) < 1500
