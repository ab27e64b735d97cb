"""otbgui and Monteverdi run the applications as a user runs them: windows, clicks, file dialogues.

Under Xvfb, moved by xdotool. What is asserted are files, titles of windows and the libraries of
processes, never pixels of the screen. What a window says of a model, and what it switches off, is
asserted on the widgets themselves in otbDLGuiGTest.cxx.
"""

import pathlib
import time

import numpy as np
import pytest
from conftest import BIN, MODELS
from osgeo import gdal

from otbtorch import demo_gui, launch
from otbtorch.demo_gui import Form, Screen

lacking = demo_gui.missing("otbgui", "monteverdi")
if lacking:
    pytest.skip(" ".join(lacking) + " is not installed", allow_module_level=True)

gdal.UseExceptions()


@pytest.fixture(scope="module")
def screen():
    with Screen() as made:
        yield made


@pytest.fixture
def start(screen):
    """Function: starts a program on the screen; it ends with the test."""
    programs = []

    def begin(*words, **env):
        programs.append(screen.start(*words, **env))
        return programs[-1]

    yield begin
    for program in programs:
        screen.stop(program)


@pytest.fixture(scope="module")
def runs(pair, tmp_path_factory):
    """Runs of SiameseCD saved by otbcli: a good one with the map that it wrote, and one without bands enough."""
    folder = tmp_path_factory.mktemp("runs")
    parameters = {"in1": pair[0], "in2": pair[1], "model": MODELS / "demo-l7.pt", "out": folder / "change.tif", "ram": 256}
    launch.run("SiameseCD", dict(parameters, outxml=folder / "good.xml"))
    wanted = read(folder / "change.tif")
    (folder / "change.tif").unlink()
    text = (folder / "good.xml").read_text()
    assert str(pair[1]) in text
    few = gdal.Translate(str(folder / "three.tif"), str(pair[1]), bandList=[1, 2, 3])
    del few
    (folder / "bad.xml").write_text(text.replace(str(pair[1]), str(folder / "three.tif")))
    return {"folder": folder, "good": folder / "good.xml", "bad": folder / "bad.xml", "out": folder / "change.tif", "map": wanted}


def read(path):
    return gdal.Open(str(path)).ReadAsArray()


def gui(application):
    return BIN / f"otbgui_{application}"


def libraries(program):
    """Files that a program and what it started have mapped."""
    mapped = set()
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            session = (process / "stat").read_text().rsplit(")", 1)[1].split()[3]
            if int(session) == program.pid:
                mapped |= {line.split(maxsplit=5)[-1].strip() for line in (process / "maps").read_text().splitlines() if "/" in line}
        except (OSError, IndexError):
            continue
    return mapped


def has_libtorch(program):
    mapped = libraries(program)
    assert any("otbapp_SiameseCD" in name for name in mapped), mapped
    return any("libtorch" in pathlib.Path(name).name for name in mapped)


@pytest.mark.parametrize("application", launch.APPLICATIONS)
def test_otbgui_opens_every_application(screen, start, application):
    program = start(gui(application))
    Form(screen, application)
    assert program.poll() is None
    assert "ERROR" not in screen.log(program)


def test_otbgui_writes_the_map_of_otbcli_and_loads_libtorch_with_the_run(screen, start, runs):
    program = start(gui("SiameseCD"))
    form = Form(screen, "SiameseCD")
    form.load(runs["good"])  # with the model, whose contract is shown
    assert not has_libtorch(program)
    form.execute()
    screen.wait(runs["out"].exists, "the map", 60)
    assert np.array_equal(read(runs["out"]), runs["map"])
    assert has_libtorch(program)
    runs["out"].unlink()


def test_otbgui_survives_a_run_that_fails_and_runs_again(screen, start, runs):
    program = start(gui("SiameseCD"))
    form = Form(screen, "SiameseCD")
    form.load(runs["bad"])
    form.execute()
    screen.wait(lambda: has_libtorch(program), "the run", 60)
    time.sleep(2)  # the window takes a second after a run
    assert program.poll() is None and form.is_open()
    assert not runs["out"].exists()
    form.load(runs["good"])
    form.execute()
    screen.wait(runs["out"].exists, "the map", 60)
    assert np.array_equal(read(runs["out"]), runs["map"])
    assert sorted(p.name for p in runs["folder"].glob("*.part-*")) == []
    runs["out"].unlink()


def test_monteverdi_lists_the_applications_and_runs_one(screen, start, pair, runs):
    program = start("monteverdi", "-a", pair[1], OTB_APPLICATION_PATH=demo_gui.every_application())
    screen.place(screen.window("^Monteverdi - "), 1270, 1000)
    for application in sorted(launch.APPLICATIONS, key=lambda name: name == "SiameseCD"):
        form = demo_gui.open_in_monteverdi(screen, application)  # on top of those before
    form.load(runs["good"])
    assert not has_libtorch(program)
    form.execute()
    screen.wait(runs["out"].exists, "the map", 60)
    assert np.array_equal(read(runs["out"]), runs["map"])
    # It opens the map by itself.
    screen.window("^Monteverdi - change.tif")
    assert program.poll() is None

