"""The descriptors of the applications: text files, a line a parameter, from which QGIS's OTB provider makes its dialogs.

OTB's ``otbQgisDescriptor`` writes them from the applications themselves. What it cannot know is put right
here (:func:`refine`), and what the provider of QGIS 3.22 cannot pass is looked for (:func:`violations`):
it passes neither ``false`` nor 0, and all lists of words as one.

``python3 -m otbtorch.qgis.descriptors --applications FOLDER --out FOLDER`` is a step of the build.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

from . import QgisError
from ..launch import APPLICATIONS

#: Keys and classes that QGIS knows: number of fields after the class.
_FIELDS = {
    "QgsProcessingParameterRasterLayer": 4,
    "QgsProcessingParameterVectorLayer": 5,
    "QgsProcessingParameterMultipleLayers": 5,
    "QgsProcessingParameterFile": 6,
    "QgsProcessingParameterBoolean": 4,
    "QgsProcessingParameterNumber": 5,
    "QgsProcessingParameterString": 5,
    "QgsProcessingParameterRasterDestination": 5,
    "QgsProcessingParameterVectorDestination": 6,
    "QgsProcessingParameterFileDestination": 6,
    "OTBParameterChoice": 5,
}

#: What takes the place of a 0 that cannot be passed; None: 0 says nothing there.
INSTEAD_OF_ZERO = {
    ("SiameseCD", "thr"): None,
    ("SiameseCD", "window"): None,
    ("ChangeLikelihood", "smooth"): "0.01",
    ("ChangeLikelihood", "clip"): "-1",
    ("ChangeLikelihood", "alpha"): None,
    ("ChangeLikelihood", "thr"): "0.000001",
    ("ChangeLikelihood", "logsnr.low"): "0.000001",
    ("ChangeLikelihood", "logsnr.high"): "0.000001",
    ("TimeSeriesClassify", "nbclasses"): None,
    ("ChangeEvaluation", "thr"): "0.000001",
    ("ChangeEvaluation", "iou"): None,
    ("ChangeEvaluation", "block"): None,
    ("ChangeEvaluation", "draws"): "-1",
    ("ChangeEvaluation", "n"): None,
    ("ChangeEvaluation", "least"): None,
}

#: What is in a file that QGIS is to name: (class, its third field).
_DESTINATIONS = {
    ("SiameseCD", "objects"): ("QgsProcessingParameterVectorDestination", "2"),
    ("ChangeLikelihood", "objects"): ("QgsProcessingParameterVectorDestination", "2"),
    ("ChangeLikelihood", "calibrate"): ("QgsProcessingParameterFileDestination", "JSON (*.json)"),
    ("ChangeEvaluation", "out"): ("QgsProcessingParameterFileDestination", "JSON (*.json)"),
    ("ChangeEvaluation", "csv"): ("QgsProcessingParameterFileDestination", "CSV (*.csv)"),
    ("ChangeEvaluation", "errors"): ("QgsProcessingParameterRasterDestination", None),
    ("ChangeEvaluation", "points"): ("QgsProcessingParameterFileDestination", "GeoPackage (*.gpkg)"),
}

#: Optional outputs that a dialog asks for all the same: without them there would be none.
_ASKED_FOR = {("TimeSeriesClassify", "out")}

#: Shown under "Advanced parameters".
_ADVANCED = set(
    "contract device batch fit seed levels pairs steps probes logsnr.low logsnr.high imstat reflayer block draws least sizes".split()
)

# What the launcher adds to each application; -ram is a setting of the provider.
_NOT_PASSED = {"ram", "progress", "help", "version", "inxml", "outxml", "testenv"}


def parse(text):
    """A descriptor: (head lines, [[class and fields] of each parameter])."""
    lines = text.splitlines()
    return lines[:3], [line.split("|") for line in lines[3:] if line.strip()]


def refine(name, text, defaults):
    """The descriptor as QGIS should have it.

    :param name: of the application
    :param text: what otbQgisDescriptor wrote
    :param defaults: key and value, as text, of each parameter that has a default
    """
    head, parameters = parse(text)
    lines = list(head)
    for fields in parameters:
        kind, key = fields[0].lstrip("*"), fields[1]
        if key == "outputpixeltype":
            continue  # one type for all outputs, files that are no images among them; each has its own already
        kind, third = _DESTINATIONS.get((name, key), (kind, fields[3]))
        if kind.endswith("Destination"):
            optional = fields[-1]
            fields = [kind, key, fields[2]] + ([] if kind == "QgsProcessingParameterRasterDestination" else [third]) + ["None", optional]
            # By itself QGIS would make every optional output unless told not to.
            fields.append("True" if optional == "False" or (name, key) in _ASKED_FOR else "False")
        elif (name, key) == ("ChangeEvaluation", "labelled"):
            fields = ["QgsProcessingParameterVectorLayer", key, fields[2], "-1", "None", fields[-1]]
        elif kind == "QgsProcessingParameterNumber" and key not in defaults:
            fields = fields[:4] + ["None", fields[5]]  # "not set"
        elif kind == "QgsProcessingParameterString" and fields[4] == "False" and defaults.get(key):
            fields = fields[:3] + [defaults[key]] + fields[4:]
        if key in _ADVANCED and not kind.startswith("OTB"):
            fields = ["*" + kind] + fields[1:]
        lines.append("|".join(fields))
    return "\n".join(lines) + "\n"


def violations(name, text, keys, defaults):
    """What QGIS could not read or pass, in words; empty when all is well.

    :param text: a refined descriptor
    :param keys: of the application's parameters
    :param defaults: as :func:`refine` takes them
    """
    head, parameters = parse(text)
    found = []
    if len(head) < 3 or not re.fullmatch(re.escape(name) + r"(\|\w+)?", head[0]):
        found.append('line 1 is "%s"; expected "%s" or "%s|output"' % (head[0] if head else "", name, name))
    if len(head) < 3 or not head[1].strip() or "|" in head[1]:
        found.append("line 2 is no description of one line, or holds a |")
    if len(head) < 3 or not head[2].strip() or "|" in head[2]:
        found.append("line 3 is no group")
    seen = set()
    for fields in parameters:
        kind, key = fields[0].lstrip("*"), fields[1] if len(fields) > 1 else ""
        if kind not in _FIELDS:
            found.append('%s: QGIS has no "%s"' % (key, kind))
            continue
        if len(fields) - 1 != _FIELDS[kind]:
            found.append("%s: %d fields instead of %d: a | in its name?" % (key, len(fields) - 1, _FIELDS[kind]))
            continue
        seen.add(key)
        destination = kind.endswith("Destination")
        optional = (fields[-2] if destination else fields[-1]) == "True"
        if kind == "QgsProcessingParameterBoolean" and fields[3].lower() == "true":
            found.append("%s: true unless asked for, and false cannot be passed" % key)
        if (
            kind == "QgsProcessingParameterNumber"
            and (key not in defaults or float(defaults[key]) != 0)
            and (name, key) not in INSTEAD_OF_ZERO
        ):
            found.append("%s: 0 cannot be passed, and is not what is taken unless given: say in INSTEAD_OF_ZERO what is to be given" % key)
        if kind == "QgsProcessingParameterString" and fields[4] == "True" and not optional:
            found.append("%s: a list that must be given, of which QGIS makes one word" % key)
        if kind == "QgsProcessingParameterMultipleLayers" and fields[3] == "4" and not optional:
            found.append("%s: a list of files that must be given, of which QGIS drops those that are no layers" % key)
        if destination and (fields[-1] == "True") != (not optional or (name, key) in _ASKED_FOR):
            found.append("%s: made by default though optional, or the reverse" % key)
    missing = [k for k in keys if k not in seen]
    if missing:
        found.append("parameters without a line: " + ", ".join(missing))
    for key in sorted(k for a, k in INSTEAD_OF_ZERO if a == name and k not in seen):
        found.append("%s: named in INSTEAD_OF_ZERO, but there is none" % key)
    return found


def _run(command, **more):
    try:
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **more)
    except FileNotFoundError:
        package = "otb-qgis" if "Descriptor" in command[0] else "otb-bin"
        raise QgisError(
            "%s is not installed. Install: apt-get install --no-install-recommends %s" % (os.path.basename(command[0]), package)
        ) from None


def parameters(name, folder, launcher="otbApplicationLauncherCommandLine"):
    """Keys of an application's parameters, and the defaults of those that have one: ([key], {key: text}), from its -help."""
    done = _run([launcher, name, folder, "-help"], env=dict(os.environ, OTB_APPLICATION_PATH=folder))
    keys, defaults = [], {}
    for line in done.stdout.splitlines():
        m = re.match(r"^(?:MISSING)?\s*-([\w.]+)\s+<([^>]*)>", line)
        if m and m.group(1) not in _NOT_PASSED and m.group(2) != "group":
            keys.append(m.group(1))
            default = re.search(r"default value is ([^),]*)\)?", line)
            if default:
                defaults[m.group(1)] = default.group(1).strip()
    if not keys:
        raise QgisError("%s: OTB's launcher tells no parameters:\n%s" % (name, done.stdout.strip()))
    return keys, defaults


def generate(name, applications, tool="otbQgisDescriptor", launcher="otbApplicationLauncherCommandLine"):
    """The refined descriptor of an application, as text.

    :param applications: folder of ``otbapp_<name>.so``
    :raises QgisError: OTB's program is not there or fails, or QGIS could not use what it wrote
    """
    if not os.path.isfile(os.path.join(applications, "otbapp_%s.so" % name)):
        raise QgisError('no application %s in "%s"' % (name, applications))
    with tempfile.TemporaryDirectory() as folder:  # the tool appends to what is there
        done = _run([tool, name, applications, folder + "/"])  # it puts folder and name together as they are
        path = os.path.join(folder, name + ".txt")
        if done.returncode or not os.path.isfile(path):
            raise QgisError(
                "%s: %s ended with %d; can otbapp_%s.so be loaded (ldd)?\n%s"
                % (name, os.path.basename(tool), done.returncode, name, done.stdout.strip())
            )
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    keys, defaults = parameters(name, applications, launcher)
    text = refine(name, text, defaults)
    found = violations(name, text, keys, defaults)
    if found:
        raise QgisError("%s cannot be used from QGIS:\n  %s" % (name, "\n  ".join(found)))
    return text


def write(path, text, encoding="utf-8"):
    """The file appears whole or not at all; one that holds the same stays as it is."""
    try:
        with open(path, encoding=encoding, newline="") as stream:
            if stream.read() == text and not os.path.islink(path):
                return
    except (OSError, UnicodeDecodeError):
        pass
    part = "%s.part-%d" % (path, os.getpid())
    with open(part, "w", encoding=encoding, newline="") as stream:
        stream.write(text)
    if os.path.exists(path):
        shutil.copymode(path, part)
    os.replace(part, path)


def algorithms(texts):
    """The lines of algs.txt, the list of algorithms that QGIS shows: group, then name. :param texts: name and descriptor"""
    return ["%s|%s" % (parse(text)[0][2], name) for name, text in texts.items()]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="otbtorch.qgis.descriptors", description=__doc__.splitlines()[0])
    parser.add_argument("--applications", required=True, help="folder of the otbapp_*.so")
    parser.add_argument("--out", required=True, help="folder to write NAME.txt and algs.txt into")
    parser.add_argument("--tool", default=shutil.which("otbQgisDescriptor") or "otbQgisDescriptor", help="OTB's own program")
    args = parser.parse_args(argv)
    try:
        texts = {name: generate(name, args.applications, args.tool) for name in APPLICATIONS}
    except QgisError as error:
        print("error: %s" % error, file=sys.stderr)
        return 1
    os.makedirs(args.out, exist_ok=True)
    for name, text in texts.items():
        write(os.path.join(args.out, name + ".txt"), text)
    write(os.path.join(args.out, "algs.txt"), "\n".join(algorithms(texts)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
