"""Runs the applications of this module from Python, as a user's command line does.

The launcher of an application is looked for where ``OTBTORCH_BIN`` says, beside this package (the
``bin`` of its prefix, or of the checkout's ``build``), then on ``PATH``.
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

APPLICATIONS = ("SiameseCD", "TimeSeriesClassify", "ChangeLikelihood", "ChangeEvaluation")


# Ends what it started once the process that wanted it is gone, however that went (kill -9 included):
# the pipe between them is then closed. A launcher is a shell script, so that a signal for the death
# of a parent would end the script and leave the application.
_GUARD = """
import os, select, signal, subprocess, sys
child = subprocess.Popen(sys.argv[2:])
while child.poll() is None:
    if select.select([int(sys.argv[1])], [], [], 0.05)[0]:
        os.killpg(0, signal.SIGKILL)
if child.returncode < 0:
    signal.signal(-child.returncode, signal.SIG_DFL) if child.returncode != -signal.SIGKILL else None
    os.kill(os.getpid(), -child.returncode)
sys.exit(child.returncode)
"""


class LaunchError(Exception):
    """An application is not there, or failed: the message is the application's own last word.

    ``log`` holds all it printed, ``returncode`` its exit status (negative: the signal that ended
    it; None: it was not started).
    """

    def __init__(self, message, log="", returncode=None):
        super().__init__(message)
        self.log = log
        self.returncode = returncode


def _folders():
    if "OTBTORCH_BIN" in os.environ:
        yield pathlib.Path(os.environ["OTBTORCH_BIN"])
        return
    here = pathlib.Path(__file__).resolve()
    for parent in list(here.parents)[1:6]:
        yield parent / "bin"
        yield parent / "build" / "bin"


def launcher(application, folder=None):
    """The path of ``otbcli_<application>``, in ``folder`` if given. Raises LaunchError where there is none."""
    name = f"otbcli_{application}"
    if folder is not None:
        path = pathlib.Path(folder) / name
        if not path.is_file():
            raise LaunchError(f"{name} is not found in {folder}")
        return str(path)
    for folder in _folders():
        if (folder / name).is_file():
            return str(folder / name)
    found = shutil.which(name)
    if found is None:
        raise LaunchError(
            f"{name} is not found: neither beside this package nor on PATH; install OTBTorch, "
            "or set OTBTORCH_BIN to the folder that holds it"
        )
    return found


def arguments(parameters):
    """A command line from a dictionary: ``{"in1": ["a.tif", "b.tif"], "thr": 0.5}``.

    A list is several words after one key; None leaves a key out; booleans are ``true`` and
    ``false``.
    """
    words = []
    for key, value in parameters.items():
        if value is None:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        words.append(f"-{key}")
        words += [str(v).lower() if isinstance(v, bool) else str(v) for v in values]
    return words


def reason(log):
    """The application's own reason for a failure; the last line of the log if it gave none."""
    fatal = re.search(r"\((?:FATAL|CRITICAL)\)\s*(?:\w+: )?(.*)", log, re.S)
    text = fatal.group(1) if fatal else (log.strip().splitlines() or ["it printed nothing"])[-1]
    text = " ".join(text.split())
    return re.sub(r"^Caught \S+ during application execution: ", "", text)


def run(application, parameters, log=None, env=None, folder=None, cwd=None, guarded=False):
    """Runs an application to its end. Returns what it printed.

    :param application: its name, as in ``otbcli_<name>``
    :param parameters: as :func:`arguments` takes them
    :param log: a file that gets what it prints as well
    :param env: variables that are added to this process's own
    :param folder: where the launcher is; else it is looked for
    :param cwd: the folder it runs in
    :param guarded: it ends when this process does, even when this one is killed
    :raises LaunchError: it is not there, or did not end with 0
    """
    command = [launcher(application, folder)] + arguments(parameters)
    pipe = os.pipe() if guarded else ()
    if guarded:
        command = [sys.executable or "python3", "-S", "-E", "-c", _GUARD, str(pipe[0])] + command
    try:
        with subprocess.Popen(
            command,
            env=dict(os.environ, **(env or {})),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=pipe[:1],
            start_new_session=guarded,
        ) as process:
            try:
                printed = process.communicate()[0]
            except BaseException:  # Ctrl-C as well: what the launcher started must not live on
                if guarded:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                raise
    finally:
        for end in pipe:
            os.close(end)
    if log is not None:
        pathlib.Path(log).write_text(printed, encoding="utf-8")
    if process.returncode:
        raise LaunchError(f"{application}: {reason(printed)}", printed, process.returncode)
    return printed
