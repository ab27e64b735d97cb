"""Applications from Python: where launchers are found, command lines, what a failure says."""

import os
import subprocess
import sys
import time

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from otbtorch import launch

FATAL = """2026-01-31 10:00:00 (INFO) SiameseCD: Default RAM limit for OTB is 256 MB
2026-01-31 10:00:01 (FATAL) SiameseCD: Caught std::exception during application execution: model: found no file at "y.pt";
expected a TorchScript file (.pt). Check the path.
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    monkeypatch.setenv("OTBTORCH_BIN", str(tmp_path))

    def write(application, text):
        path = tmp_path / f"otbcli_{application}"
        path.write_text("#!/bin/sh\n" + text)
        path.chmod(0o755)
        return str(path)

    return write


def test_a_launcher_is_found_where_it_is_said_to_be(programs):
    path = programs("SiameseCD", "")
    assert launch.launcher("SiameseCD") == path


def test_a_launcher_that_is_not_there_is_an_error_with_the_way_out(programs, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(launch.LaunchError, match="otbcli_SiameseCD is not found.*OTBTORCH_BIN"):
        launch.launcher("SiameseCD")


def test_a_folder_may_be_named(programs, tmp_path):
    programs("SiameseCD", "")
    (tmp_path / "other").mkdir()
    with pytest.raises(launch.LaunchError, match="otbcli_SiameseCD is not found in .*other"):
        launch.run("SiameseCD", {}, folder=tmp_path / "other")
    (tmp_path / "otbcli_SiameseCD").rename(tmp_path / "other" / "otbcli_SiameseCD")
    assert launch.run("SiameseCD", {}, folder=str(tmp_path / "other")) == ""


def test_arguments(tmp_path):
    words = launch.arguments({"in1": ["a b.tif", tmp_path], "thr": 0.5, "on": True, "no": None})
    assert words == ["-in1", "a b.tif", str(tmp_path), "-thr", "0.5", "-on", "true"]


def test_run_passes_words_and_variables_and_keeps_the_log(programs, tmp_path):
    programs("SiameseCD", 'printf "%s|" "$@" "$EXTRA"; echo wrong >&2\n')
    printed = launch.run("SiameseCD", {"in": "a b"}, log=tmp_path / "log", env={"EXTRA": "x"})
    assert printed == "-in|a b|x|wrong\n" == (tmp_path / "log").read_text()


def test_a_failure_says_what_the_application_said(programs, tmp_path):
    (tmp_path / "said").write_text(FATAL)
    programs("SiameseCD", f"cat {tmp_path}/said; exit 1\n")
    with pytest.raises(launch.LaunchError) as error:
        launch.run("SiameseCD", {})
    assert str(error.value) == (
        'SiameseCD: model: found no file at "y.pt"; expected a TorchScript file (.pt). '
        "Check the path."
    )
    assert error.value.returncode == 1 and error.value.log == FATAL


@pytest.mark.parametrize(
    ("text", "said", "code"),
    [("exit 3", "it printed nothing", 3), ("echo a; echo b; exit 1", "b", 1), ("kill -9 $$", "it printed nothing", -9)],
)
def test_a_failure_without_a_word(programs, text, said, code):
    programs("SiameseCD", text + "\n")
    with pytest.raises(launch.LaunchError, match=f"^SiameseCD: {said}$") as error:
        launch.run("SiameseCD", {})
    assert error.value.returncode == code


@pytest.mark.parametrize(("text", "code"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -15 $$", -15)])
def test_a_guarded_run_ends_as_it_would_without(programs, text, code):
    programs("SiameseCD", text + "\n")
    with pytest.raises(launch.LaunchError) as error:
        launch.run("SiameseCD", {}, guarded=True)
    assert error.value.returncode == code


def test_a_guarded_run_says_what_it_printed_and_where_it_ran(programs, tmp_path):
    programs("SiameseCD", "echo here; pwd\n")
    assert launch.run("SiameseCD", {}, cwd=tmp_path, guarded=True) == f"here\n{tmp_path}\n"


def test_what_is_guarded_ends_with_the_process_that_wanted_it(programs, tmp_path):
    """A launcher is a script: what it started itself must end as well."""
    programs("SiameseCD", f"sleep 60 & echo $! > {tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid; wait\n")
    parent = subprocess.Popen(
        [sys.executable, "-c", "from otbtorch import launch; launch.run('SiameseCD', {}, guarded=True)"],
        env=dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)),
    )
    wait_for(lambda: (tmp_path / "pid").exists())
    grandchild = int((tmp_path / "pid").read_text())
    assert alive(grandchild)
    parent.kill()
    parent.wait()
    wait_for(lambda: not alive(grandchild))


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_what_was_started_ends_with_an_interrupt(programs, tmp_path):
    """Ctrl-C ends the launcher, its guard and what the launcher started."""
    programs("SiameseCD", f"sleep 60 & echo $! > {tmp_path}/child; wait\n")
    code = "from otbtorch import launch; launch.run('SiameseCD', {}, guarded=True)"
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ), stderr=subprocess.DEVNULL)
    child = tmp_path / "child"
    end = time.monotonic() + 20
    while not (child.exists() and child.read_text().strip()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(20)
    stat = pathlib.Path("/proc") / child.read_text().strip() / "stat"
    while stat.exists() and stat.read_text().split(") ")[1][0] != "Z":
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.05)
