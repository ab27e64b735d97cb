"""``python3 -m otbtorch qgis-folder``: an OTB folder for QGIS with OTB's applications and these, and the settings of a profile.

QGIS's OTB provider takes one folder with ``bin``, ``share/otb/description`` and a list of algorithms. The
system's belongs to the system; this makes one beside it, of links.
"""

import itertools
import os
import pathlib
import re
import shutil

from . import QgisError, descriptors
from ..launch import APPLICATIONS, LaunchError, launcher as otbcli

_SIGNED = "otbtorch.qgis.launcher"
_SCRIPT = '''#!/usr/bin/python3
"""Made by `python3 -m otbtorch qgis-folder`: runs OTB's launcher for QGIS (otbtorch.qgis.launcher)."""
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, {package!r})
from otbtorch.qgis.launcher import main

sys.exit(main({launcher!r}, {applications!r}, {descriptions!r}, sys.argv[1:]))
'''


def add_arguments(command):
    a = command.add_argument
    a("folder", nargs="?", default="~/.local/share/otbtorch/qgis", help="to make or renew (default: %(default)s)")
    a("--applications", metavar="FOLDER", help="that holds otbapp_SiameseCD.so (default: beside otbcli_SiameseCD)")
    a(
        "--profile",
        metavar="NAME",
        help="also set up this profile of QGIS, or the one in this folder: provider, models, the report; close QGIS before",
    )


def _system():
    """OTB's own programs and folders: (launcher, descriptor tool, applications, descriptions)."""
    found = []
    for name, package in (("otbApplicationLauncherCommandLine", "otb-bin"), ("otbQgisDescriptor", "otb-qgis")):
        path = shutil.which(name)
        if path is None:
            raise QgisError("%s is not installed. Install: apt-get install --no-install-recommends %s" % (name, package))
        found.append(os.path.realpath(path))
    prefix = pathlib.Path(found[0]).parents[1]
    folders = [prefix / "lib" / "otb" / "applications"] + sorted(prefix.glob("lib/*/otb/applications"))
    applications = next((f for f in folders if any(f.glob("otbapp_BandMath.so"))), None)
    descriptions = prefix / "share" / "otb" / "description"
    if applications is None or not (descriptions / "algs.txt").is_file():
        raise QgisError('OTB in "%s" has no applications, or no descriptions of them. Install: otb-bin, otb-qgis' % prefix)
    return found[0], found[1], applications, descriptions


def find_applications():
    """The folder of these applications: beside their launchers. Raises QgisError."""
    try:
        program = pathlib.Path(otbcli("SiameseCD")).resolve()
    except LaunchError as error:
        raise QgisError("%s; or give --applications" % error) from None
    prefix = program.parents[1]
    for folder in [prefix / "lib" / "otb" / "applications"] + sorted(prefix.glob("lib/*/otb/applications")):
        if (folder / "otbapp_SiameseCD.so").is_file():
            return folder
    raise QgisError('"%s" has no folder of applications beside it; give --applications' % program)


def data():
    """Folder of the models and scripts for Processing: of the checkout, or installed with the package."""
    here = pathlib.Path(__file__).resolve()
    for folder in [here.parents[3] / "data" / "qgis"] + [p / "share" / "otbtorch" / "qgis" for p in list(here.parents)[3:6]]:
        if list(folder.glob("*.model3")):
            return folder
    raise QgisError("the Processing models are not beside this package: is its installation whole?")


def make(folder, applications=None):
    """Makes or renews an OTB folder for QGIS. Returns the two settings of the provider: (OTB folder, application folder).

    :param folder: its place; refused if it holds anything else
    :param applications: folder of ``otbapp_SiameseCD.so`` and the others; None: found
    :raises QgisError: OTB is not installed, there is no such folder, or another OTB lies there
    """
    folder = pathlib.Path(os.path.expanduser(folder)).absolute()
    if folder.exists() and not folder.is_dir():
        raise QgisError('"%s" is a file; name a folder' % folder)
    launcher, tool, system, described = _system()
    applications = pathlib.Path(os.path.expanduser(applications)).absolute() if applications else find_applications()
    script = folder / "bin" / "otbApplicationLauncherCommandLine"
    if (
        folder.exists()
        and any(folder.iterdir())
        and not (script.is_file() and _SIGNED in script.read_text(encoding="utf-8", errors="replace"))
    ):
        raise QgisError('"%s" holds something else; name a new folder' % folder)
    for path, bad in ((folder, r'[;"$`\\]'), (system, r'[\s;:"$`\\]'), (applications, ":")):
        if re.search(bad, str(path)):
            raise QgisError('"%s" has a character that QGIS does not pass on; name another folder' % path)
    texts = {}
    for name in APPLICATIONS:
        of_them = [p / "share" / "otb" / "description" / (name + ".txt") for p in list(applications.parents)[2:4]]  # of the same installation
        ready = next((p for p in of_them if p.is_file() and p.parent != described), None)
        texts[name] = ready.read_text(encoding="utf-8") if ready else descriptors.generate(name, str(applications), tool, launcher)

    target = folder / "share" / "otb" / "description"
    target.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    others = {p.name for p in described.glob("*.txt")} - {"algs.txt"} - {name + ".txt" for name in APPLICATIONS}
    for path in target.iterdir():
        if path.is_symlink() and (path.name not in others or os.readlink(path) != str(described / path.name)):
            path.unlink()
    for name in others:
        if not (target / name).is_symlink():
            (target / name).symlink_to(described / name)
    for name, text in texts.items():
        descriptors.write(target / (name + ".txt"), text)
    lines = [line for line in (described / "algs.txt").read_text(encoding="utf-8").splitlines() if line.partition("|")[2] not in texts]
    descriptors.write(target / "algs.txt", "\n".join(lines + descriptors.algorithms(texts)) + "\n")
    link = folder / "bin" / "otbQgisDescriptor"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(tool)
    package = str(pathlib.Path(__file__).resolve().parents[2])
    descriptors.write(script, _SCRIPT.format(package=package, launcher=launcher, applications=str(applications), descriptions=str(target)))
    script.chmod(0o755)
    return str(folder), str(system)


def _quoted(value):
    """As Qt writes a string into an INI file."""
    text, digit = "", False
    for c in value:
        if c in '"\\':
            text, digit = text + "\\" + c, False
        elif not 32 <= ord(c) < 127 or (digit and c in "0123456789abcdefABCDEF"):
            text, digit = text + "\\x%x" % ord(c), True
        else:
            text, digit = text + c, False
    return '"%s"' % text if any(c in value for c in ',;="') or value != value.strip() else text


def set_values(text, section, values):
    """The text of an INI file of Qt's in which keys of a section have these values; all else stays as it was."""
    lines = text.split("\n")  # not at other characters that Python takes for ends of lines
    if lines[-1] == "":
        lines.pop()
    start = next((k for k, line in enumerate(lines) if line.strip() == "[%s]" % section), None)
    if start is None:
        lines += ([""] if lines and lines[-1].strip() else []) + ["[%s]" % section]
        start = len(lines) - 1
    for key, value in values.items():
        end = next((k for k in range(start + 1, len(lines)) if lines[k].startswith("[")), len(lines))
        at = next((k for k in range(start + 1, end) if lines[k].startswith(key + "=")), None)
        line = "%s=%s" % (key, _quoted(value))
        if at is None:
            while end > start + 1 and not lines[end - 1].strip():
                end -= 1
            lines.insert(end, line)
        else:
            lines[at] = line
    return "\n".join(lines) + "\n"


def profile_folder(name):
    """Folder of a profile of QGIS 3, by its name or as it is given."""
    if os.sep in name:
        return pathlib.Path(os.path.expanduser(name)).absolute()
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return pathlib.Path(home) / "QGIS" / "QGIS3" / "profiles" / name


def set_up(profile, otb, applications):
    """Writes what a profile needs: the provider switched on, its settings, the models, the script of the report, the plugin of the styles.

    :param profile: name or folder
    :param otb, applications: as :func:`make` returns them
    :returns: the profile's folder; models and scripts that were changed there and are kept under another name
    """
    folder = profile_folder(profile)
    ini = folder / "QGIS" / "QGIS3.ini"
    ini.parent.mkdir(parents=True, exist_ok=True)
    if ini.is_symlink():
        ini = ini.resolve()
    # Qt escapes; whatever else is there stays, byte for byte.
    text = ini.read_bytes().decode("latin-1") if ini.is_file() else ""
    text = set_values(text, "PythonPlugins", {"processing": "true", "otbprovider": "true", "otbtorch_styles": "true"})
    text = set_values(text, "Processing", {"Configuration\\OTB_FOLDER": otb, "Configuration\\OTB_APP_FOLDER": applications})
    text = set_values(text, "otbtorch", {"python": str(pathlib.Path(__file__).resolve().parents[2])})
    descriptors.write(ini, text, "latin-1")
    kept = []
    for kind, pattern in (("models", "*.model3"), ("scripts", "*.py")):
        target = folder / "processing" / kind
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted(data().glob(pattern)):
            ours, theirs = path.read_text(encoding="utf-8"), target / path.name
            if theirs.is_file() and theirs.read_text(encoding="utf-8", errors="replace") != ours:
                names = (str(theirs) + "~" + (str(k) if k else "") for k in itertools.count())
                kept.append(next(name for name in names if not os.path.lexists(name)))  # what was kept before stays
                os.replace(theirs, kept[-1])
            descriptors.write(theirs, ours)
    target = folder / "python" / "plugins" / "otbtorch_styles"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((data() / target.name).glob("*.*")):
        descriptors.write(target / path.name, path.read_text(encoding="utf-8"))
    return folder, kept


def command(args):
    """Runs the subcommand. Raises QgisError."""
    otb, applications = make(args.folder, args.applications)
    print("OTB folder:             " + otb)
    print("OTB application folder: " + applications)
    if args.profile:
        folder, kept = set_up(args.profile, otb, applications)
        for path in kept:
            print("kept what was changed: " + path)
        print("Set up the profile in %s; start QGIS again" % folder)
    else:
        print("Give both to QGIS: Settings, Options, Processing, Providers, OTB (or let --profile default do it)")
    return 0
