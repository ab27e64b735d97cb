"""Descriptors for QGIS by the provider's rules, the launcher that stands before OTB's, settings of a profile. Without QGIS or OTB."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from otbtorch.qgis import QgisError, descriptors, folder, launcher

HEAD = "SiameseCD|out\nDetects.\nChange Detection\n"
RAW = (
    HEAD
    + """QgsProcessingParameterMultipleLayers|in1|Image|3|None|False
QgsProcessingParameterFile|model|Model|QgsProcessingParameterFile.File|None|None|False
QgsProcessingParameterRasterDestination|out|Map|None|False
QgsProcessingParameterRasterDestination|proba|Probability|None|True
QgsProcessingParameterNumber|thr|Threshold|QgsProcessingParameterNumber.Double|-1|True
QgsProcessingParameterNumber|window|Window|QgsProcessingParameterNumber.Integer|1|True
QgsProcessingParameterNumber|free|No default|QgsProcessingParameterNumber.Integer|0|True
QgsProcessingParameterFileDestination|objects|Objects|None|None|True
QgsProcessingParameterString|device|Device|None|False|True
OTBParameterChoice|align|Grids|strict;resample|0|True
*QgsProcessingParameterEnum|outputpixeltype|Output pixel type|uint8;int;float;double|False|2|True
"""
)
DEFAULTS = dict(thr="-1", window="1", device="auto", minsize="0")
KEYS = "in1 model out proba thr window objects device align".split()


def lines_of(text):
    return {line.split("|")[1]: line for line in text.splitlines()[3:]}


def test_a_descriptor_is_made_fit_for_qgis():
    lines = lines_of(descriptors.refine("SiameseCD", RAW, DEFAULTS))
    assert "outputpixeltype" not in lines
    assert lines["out"].endswith("|None|False|True") and lines["proba"].endswith("|None|True|False")
    assert lines["objects"] == "QgsProcessingParameterVectorDestination|objects|Objects|2|None|True|False"
    assert lines["device"] == "*QgsProcessingParameterString|device|Device|auto|False|True"
    assert lines["free"].split("|")[4] == "None"
    for key in ("in1", "model", "thr", "align"):
        assert lines[key] in RAW
    again = descriptors.refine("SiameseCD", RAW, DEFAULTS)
    assert descriptors.parse(again)[0] == HEAD.splitlines()


def good():
    return descriptors.refine(
        "SiameseCD", RAW.replace("QgsProcessingParameterNumber|free|No default|QgsProcessingParameterNumber.Integer|0|True\n", ""), DEFAULTS
    )


def test_what_qgis_can_use_has_no_violations():
    assert descriptors.violations("SiameseCD", good(), KEYS, DEFAULTS) == []


@pytest.mark.parametrize(
    "old, new, words",
    [
        ("SiameseCD|out", "Siamese", "line 1"),
        ("\nDetects.", "\n", "line 2"),
        ("\nDetects.", "\nDetects|finds.", "line 2"),
        ("|Map|", "|Map | or so|", "out: 6 fields instead of 5"),
        ("QgsProcessingParameterFile|", "QgsProcessingParameterXml|", 'model: QGIS has no "QgsProcessingParameterXml"'),
        ("QgsProcessingParameterRasterDestination|proba|Probability|None|True|False\n", "", "without a line: proba"),
        ("|proba|Probability|None|True|False", "|proba|Probability|None|True|True", "proba: made by default"),
        (
            "OTBParameterChoice|align|Grids|strict;resample|0|True",
            "QgsProcessingParameterBoolean|align|Grids|true|True",
            "align: true unless asked for",
        ),
        (
            "OTBParameterChoice|align|Grids|strict;resample|0|True",
            "QgsProcessingParameterString|align|Grids|None|True|False",
            "align: a list",
        ),
        (
            "OTBParameterChoice|align|Grids|strict;resample|0|True",
            "QgsProcessingParameterMultipleLayers|align|Grids|4|None|False",
            "align: a list of files",
        ),
        (
            "OTBParameterChoice|align|Grids|strict;resample|0|True",
            "QgsProcessingParameterNumber|align|Grids|QgsProcessingParameterNumber.Double|3|True",
            "align: 0 cannot be passed",
        ),
    ],
)
def test_violations(old, new, words):
    text = good()
    assert text.count(old) == 1
    found = descriptors.violations("SiameseCD", text.replace(old, new), KEYS, dict(DEFAULTS, align="3"))
    assert any(words in v for v in found), found


def test_an_exception_for_a_parameter_that_is_gone_is_told():
    text = "\n".join(line for line in good().splitlines() if "|window|" not in line)
    assert any("window: named in INSTEAD_OF_ZERO" in v for v in descriptors.violations("SiameseCD", text, [], DEFAULTS))


def test_the_page_says_what_to_give_instead_of_zero():
    page = (pathlib.Path(__file__).parents[2] / "doc" / "qgis.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith("| never passes 0"))
    for (_, key), value in descriptors.INSTEAD_OF_ZERO.items():
        assert value is None or (f"`{key}`" in row and value in row), key


def program(path, text):
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def applications(tmp_path):
    made = tmp_path / "applications"
    made.mkdir()
    (made / "otbapp_SiameseCD.so").touch()
    return str(made)


def test_a_library_that_cannot_be_loaded_stops_the_build(tmp_path, applications):
    tool = program(tmp_path / "otbQgisDescriptor", "kill -SEGV $$\n")
    with pytest.raises(QgisError, match="ended with -11; can otbapp_SiameseCD.so be loaded"):
        descriptors.generate("SiameseCD", applications, tool)
    with pytest.raises(QgisError, match="no application ChangeLikelihood"):
        descriptors.generate("ChangeLikelihood", applications, tool)


def test_a_program_that_is_not_there_is_named_with_its_package(tmp_path, applications):
    with pytest.raises(QgisError, match="otbQgisDescriptor is not installed.*otb-qgis"):
        descriptors.generate("SiameseCD", applications, str(tmp_path / "otbQgisDescriptor"))


# ------------------------------------------------------------------------------------------------ launcher


@pytest.mark.parametrize(
    "words, joined",
    [
        ("-model /a b c.pt -out x.tif", ["-model", "/a b c.pt", "-out", "x.tif"]),
        ("-out x.tif -model /a b.pt", ["-out", "x.tif", "-model", "/a b.pt"]),
        ("-in1 a b -thr -1 -model m", ["-in1", "a", "b", "-thr", "-1", "-model", "m"]),
        ("-model /a - b.pt", ["-model", "/a - b.pt"]),
        ("stray", ["stray"]),
    ],
)
def test_names_cut_at_spaces_are_joined(words, joined):
    assert launcher.join_names(words.split(), {"model"}) == joined


def test_keys_of_names_come_from_the_descriptor(tmp_path):
    (tmp_path / "SiameseCD.txt").write_text(good().replace("QgsProcessingParameterFile|", "*QgsProcessingParameterFile|"))
    assert launcher.file_keys(tmp_path / "SiameseCD.txt") == {"model"}
    assert launcher.file_keys(tmp_path / "none.txt") == set()


def start(tmp_path, text, argv, env):
    inner = program(tmp_path / "inner", text)
    code = "import sys; from otbtorch.qgis.launcher import main; sys.exit(main(sys.argv[1], '/ours', %r, sys.argv[2:]))" % str(tmp_path)
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run([sys.executable, "-c", code, inner] + argv, env=dict(env, PYTHONPATH=path), stdout=subprocess.PIPE, text=True)


def test_an_application_gets_back_what_qgis_took(tmp_path):
    """Home, a path for programs, both folders of applications; and its words as they were meant."""
    (tmp_path / "SiameseCD.txt").write_text(good())
    text = 'echo "$HOME;$PATH;$OTB_APPLICATION_PATH;$LC_NUMERIC"\nfor w in "$@"; do echo "<$w>"; done\n'
    done = start(tmp_path, text, ["SiameseCD", "/system", "-model", "/a", "b.pt", "-in1", "c d", "e"], dict(LC_NUMERIC="C"))
    lines = done.stdout.splitlines()
    home, path, folders, numeric = lines[0].split(";")
    assert os.path.isdir(home) and "/usr/bin" in path and (folders, numeric) == ("/system:/ours", "C")
    assert lines[1:] == ["<SiameseCD>", "<-model>", "</a b.pt>", "<-in1>", "<c d>", "<e>"] and done.returncode == 0


@pytest.mark.parametrize("text, status, how", [("exit 3", 3, "exit status 3"), ("kill -KILL $$", 128 + signal.SIGKILL, "ended by SIGKILL")])
def test_a_failure_is_a_line_that_qgis_cannot_read(text, status, how, tmp_path):
    """QGIS 3.22 takes lines with "% [" for progress, and what stands behind a colon for the number."""
    done = start(tmp_path, text, ["SiameseCD", "/system"], os.environ)
    last = done.stdout.splitlines()[-1]
    assert done.returncode == status and how in last and "% [" in last and ":" not in last


# ------------------------------------------------------------------------------------------------ profiles


def test_settings_are_set_and_others_stay():
    text = "[a]\nx=1\n\n[Processing]\nConfiguration\\OTB_FOLDER=/usr\nother=@ByteArray(\\0)\n\n[b]\ny=2\n"
    made = folder.set_values(text, "Processing", {"Configuration\\OTB_FOLDER": "/o", "new": "n"})
    assert made == "[a]\nx=1\n\n[Processing]\nConfiguration\\OTB_FOLDER=/o\nother=@ByteArray(\\0)\nnew=n\n\n[b]\ny=2\n"
    assert folder.set_values(made, "Processing", {"new": "n"}) == made
    assert folder.set_values("", "s", {"k": "v"}) == "[s]\nk=v\n"


def test_values_are_written_as_qt_reads_them():
    made = folder.set_values("", "s", {"a": "/x/Élan, b", "c": 'q"\\'})
    assert made == '[s]\na="/x/\\xc9lan, b"\nc="q\\"\\\\"\n'
    assert folder.set_values("", "s", {"a": "éa"}) == "[s]\na=\\xe9\\x61\n"


def test_profiles_are_found_by_name_or_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert folder.profile_folder("mine") == tmp_path / "QGIS" / "QGIS3" / "profiles" / "mine"
    assert folder.profile_folder(str(tmp_path / "p")) == tmp_path / "p"


def test_a_profile_gets_models_and_keeps_what_was_changed(tmp_path):
    made, kept = folder.set_up(str(tmp_path / "p"), "/otb", "/applications")
    models = made / "processing" / "models"
    shipped = (models / "pair_to_objects.model3").read_text()
    assert len(list(models.iterdir())) == 3 and (made / "processing" / "scripts" / "otbtorch_report.py").exists() and kept == []
    assert (made / "python" / "plugins" / "otbtorch_styles" / "metadata.txt").exists()
    (models / "pair_to_objects.model3").write_text("mine")
    ini = made / "QGIS" / "QGIS3.ini"
    ini.write_bytes(ini.read_bytes() + b"[b]\nx=\xe9\n")
    assert folder.set_up(str(tmp_path / "p"), "/otb", "/applications") == (made, [str(models / "pair_to_objects.model3~")])
    assert (models / "pair_to_objects.model3~").read_text() == "mine" and (models / "pair_to_objects.model3").read_text() == shipped
    assert b"[b]\nx=\xe9\n" in ini.read_bytes() and b"Configuration\\OTB_FOLDER=/otb\n" in ini.read_bytes()


def test_what_a_profile_says_otherwise_stays_to_the_byte(tmp_path):
    """Not every byte that Python takes for an end of a line is one; passwords stay private."""
    ini = tmp_path / "p" / "QGIS" / "QGIS3.ini"
    ini.parent.mkdir(parents=True)
    ini.write_bytes("[a]\nlast=/data/Århus/x\n".encode())
    ini.chmod(0o600)
    folder.set_up(str(tmp_path / "p"), "/otb", "/applications")
    assert ini.read_bytes().startswith("[a]\nlast=/data/Århus/x\n".encode())
    assert ini.stat().st_mode & 0o777 == 0o600


def test_a_changed_model_is_kept_however_often(tmp_path):
    folder.set_up(str(tmp_path / "p"), "/otb", "/applications")
    model = tmp_path / "p" / "processing" / "models" / "pair_to_objects.model3"
    for text in ("mine", "mine again"):
        model.write_text(text)
        folder.set_up(str(tmp_path / "p"), "/otb", "/applications")
    assert [(model.parent / (model.name + end)).read_text() for end in ("~", "~1")] == ["mine", "mine again"]


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(QgisError, match="is a file; name a folder"):
        folder.make(str(tmp_path / "f"))
