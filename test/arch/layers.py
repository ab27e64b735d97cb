# Copyright (C) 2026 the OTBTorch authors
#
# Licensed under the Apache License, Version 2.0: see LICENSE.
"""The layers, by what each file includes: arrows only downward (doc/architecture.md).

``python3 layers.py``; the compiler is ``$OTBDL_CXX``, c++ where that is not set. Needs the standard
library alone.
"""

import os
import pathlib
import re
import subprocess
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
CXX = os.environ.get("OTBDL_CXX", "c++")

FOREIGN = {
    "torch": re.compile(r"^(torch|ATen|c10|caffe2)/"),
    "ITK": re.compile(r"^(itk|vnl|vcl)"),
    "OTB": re.compile(r"^otb(?!DL)"),
    "GDAL": re.compile(r"^(gdal|ogr|cpl)"),
    "OpenCV": re.compile(r"^opencv"),
}
TORCH_NAMES = re.compile(r"\b(torch|at|c10|caffe2)::")
COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", re.S)
INCLUDE = re.compile(r"^\s*#\s*include\s*[<\"]([^>\"]+)[>\"]", re.M)

# Headers of the project by layer; those of include/ that are not listed are core.
FILTER = {
    "otbDLChangeObjects.h",
    "otbDLGdal.h",
    "otbDLLegendFiles.h",
    "otbDLMapFilter.h",
    "otbDLObjectMatches.h",
    "otbDLPairShift.h",
    "otbDLPatchMapFilter.h",
    "otbDLSceneMapFilter.h",
    "otbDLSeriesMapFilter.h",
    "otbDLThreshold.h",
}
RUNTIME = {"otbDLRuntime.h", "otbDLModelArchive.h", "otbDLTensorMemory.h"}


def files(*patterns):
    found = sorted(p for pattern in patterns for p in ROOT.glob(pattern))
    assert found, f"nothing matches {patterns}"
    return found


def core_headers():
    return [p for p in files("include/*.h") if p.name not in FILTER | RUNTIME]


def includes(path):
    return INCLUDE.findall(path.read_text(encoding="utf-8"))


def foreign(paths, *libraries):
    """``file: header`` of every include of one of the libraries."""
    return [
        f"{p.relative_to(ROOT)}: {h}"
        for p in paths
        for h in includes(p)
        if any(FOREIGN[name].match(h) for name in libraries)
    ]


def ours(paths, names):
    return [f"{p.relative_to(ROOT)}: {h}" for p in paths for h in includes(p) if h in names]


class Layers(unittest.TestCase):
    def test_core_knows_no_torch_itk_otb_or_gdal(self):
        self.assertEqual(foreign(files("src/core/*") + core_headers(), *FOREIGN), [])

    def test_core_knows_neither_runtime_nor_filter(self):
        self.assertEqual(ours(files("src/core/*") + core_headers(), RUNTIME | FILTER), [])

    def test_runtime_knows_no_itk_otb_or_gdal(self):
        runtime = files("src/runtime/*", "include/otbDLRuntime.h")
        self.assertEqual(foreign(runtime, "ITK", "OTB", "GDAL"), [])
        self.assertEqual(ours(runtime, FILTER), [])

    def test_filter_knows_no_torch(self):
        filters = files("src/filter/*", "include/otbDLPatchMapFilter.h")
        self.assertEqual(foreign(filters, "torch"), [])
        self.assertEqual(ours(filters, RUNTIME), [])

    def test_applications_know_no_torch(self):
        self.assertEqual(foreign(files("app/*.h", "app/*.cxx"), "torch"), [])

    def test_public_headers_know_no_torch(self):
        self.assertEqual(foreign(files("include/*.h"), "torch"), [])

    def test_only_the_runtime_names_torch(self):
        found = []
        for path in files("include/*.h", "src/core/*", "src/filter/*", "app/*.h", "app/*.cxx"):
            code = COMMENT.sub("", path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(ROOT)}: {m.group()}" for m in TORCH_NAMES.finditer(code)]
        self.assertEqual(found, [])

    def test_the_runtime_does(self):
        """The patterns above find what they look for."""
        self.assertTrue(foreign(files("src/runtime/*"), "torch"))
        self.assertTrue(foreign(files("include/*.h", "src/filter/*"), "ITK"))
        self.assertTrue(foreign(files("app/*.cxx", "app/*.h"), "OTB"))

    def test_core_headers_compile_alone(self):
        for header in core_headers() + files("include/otbDLRuntime.h"):
            with self.subTest(header=header.name):
                command = [CXX, "-std=c++17", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
                command += ["-I", str(ROOT / "include"), "-x", "c++", "-"]
                done = subprocess.run(
                    command,
                    input=f'#include "{header.name}"\n#include "{header.name}"\n',
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
                self.assertEqual(done.returncode, 0, done.stdout)

    def test_no_file_names_a_place_of_one_machine(self):
        place = re.compile(rb"(?<![\w.~-])/(" + b"|".join([b"work", b"root", b"home"]) + rb")/")
        found = []
        for folder, folders, names in os.walk(ROOT):
            if pathlib.Path(folder) == ROOT:
                folders[:] = [f for f in folders if not f.startswith(("build", ".git"))]
                folders[:] = [f for f in folders if f not in ("demo", "shared")]
            folders[:] = [f for f in folders if f not in ("__pycache__", ".pytest_cache")]
            for name in names:
                path = pathlib.Path(folder) / name
                if place.search(path.read_bytes()):
                    found.append(str(path.relative_to(ROOT)))
        self.assertEqual(found, [])


if __name__ == "__main__":
    unittest.main()
