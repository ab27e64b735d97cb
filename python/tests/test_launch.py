"""Applications from Python: where launchers are found, command lines, what a failure says."""

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
