"""Pictures of otbgui and Monteverdi running SiameseCD: ``/usr/bin/python3 -m otbtorch.demo_gui``.

Starts them on a screen of their own (Xvfb), fills in the windows as a user would (xdotool), runs
the demonstration pair, and saves what is seen (ImageMagick). :class:`Screen` and :class:`Form` serve
the tests of the windows as well. Needs the Debian packages otb-bin-qt, monteverdi, xvfb, xdotool
and imagemagick.
"""

import argparse
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from . import launch

PROGRAMS = {"Xvfb": "xvfb", "xdotool": "xdotool", "import": "imagemagick"}


class ScreenError(Exception):
    """A window did not come, or a program that is needed is not there."""


def missing(*programs):
    """Names of Debian packages that are not installed."""
    wanted = dict(PROGRAMS, **{name: package for name, package in (("otbgui", "otb-bin-qt"), ("monteverdi", "monteverdi")) if name in programs})
    return sorted(package for program, package in wanted.items() if shutil.which(program) is None)


def applications():
    """The folder of this module's applications, beside their launchers."""
    folder = pathlib.Path(launch.launcher("SiameseCD")).resolve().parent.parent / "lib" / "otb" / "applications"
    return str(folder)


def every_application():
    """OTB_APPLICATION_PATH of Monteverdi: this module's applications and OTB's own."""
    own = [applications()]
    for name in ("/usr/lib/%s/otb/applications" % (os.uname().machine + "-linux-gnu"), "/usr/lib/otb/applications"):
        own += [name] if os.path.isdir(name) and name not in own else []
    return ":".join(own)


class Screen:
    """A screen of its own, without a window manager; a context manager. Programs started on it end with it."""

    def __init__(self, width=1280, height=1024):
        self.size = (width, height)
        self.programs = []

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        read, write = os.pipe()
        # Without -noreset it starts anew when the last client leaves, and may turn away one that comes just then.
        self.server = subprocess.Popen(
            ["Xvfb", "-noreset", "-displayfd", str(write), "-screen", "0", "%dx%dx24" % self.size, "-nolisten", "tcp"],
            pass_fds=[write],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(write)
        with os.fdopen(read) as stream:
            number = stream.readline().strip()
        if not number:
            raise ScreenError("Xvfb did not start")
        home = self.folder.name
        os.chmod(home, 0o700)
        # One style, one size of letters and a home of its own: windows look alike wherever this runs.
        self.env = dict(
            os.environ,
            DISPLAY=":" + number,
            HOME=home,
            XDG_RUNTIME_DIR=home,
            XDG_CONFIG_HOME=home,
            QT_QPA_PLATFORM="xcb",
            QT_STYLE_OVERRIDE="Fusion",
            QT_FONT_DPI="96",
            LC_ALL="C.UTF-8",
            LANGUAGE="C",
        )
        return self

    def __exit__(self, *_):
        for program in self.programs:
            self.stop(program)
        self.server.terminate()
        self.server.wait()
        self.folder.cleanup()

    def start(self, *words, **env):
        """Starts a program on this screen; what it prints is in ``log(program)``."""
        name = os.path.join(self.folder.name, "log-%d" % len(self.programs))
        with open(name, "wb") as log:
            program = subprocess.Popen(
                [str(w) for w in words],
                env=dict(self.env, **{k: str(v) for k, v in env.items()}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program.log_file = name
        self.programs.append(program)
        return program

    def stop(self, program):
        """Ends a program and what it started, and waits until its windows are gone: the next ones may bear the same titles."""
        mine = [w for w in self.windows(".+") if self.session(w) == program.pid]
        try:
            os.killpg(program.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        program.wait()
        self.wait(lambda: not set(mine) & set(self.windows(".+")), "the end of the windows", 10)

    def session(self, window):
        """Of the process that a window is of: the number of the program that was started."""
        try:
            return os.getsid(int(self.do("getwindowpid", window)))
        except (ValueError, ProcessLookupError):
            return None

    def log(self, program):
        return pathlib.Path(program.log_file).read_text(errors="replace")

    def do(self, *words):
        """One command of xdotool; what it printed."""
        done = subprocess.run(["xdotool"] + [str(w) for w in words], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return done.stdout.strip()

    def windows(self, title):
        """Windows that are seen and whose title matches a regular expression."""
        return self.do("search", "--onlyvisible", "--name", title).split()

    def wait(self, condition, what, seconds=30):
        """Waits until a condition holds, and returns what it is. Raises ScreenError."""
        end = time.monotonic() + seconds
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise ScreenError("%s did not come within %g s\n%s" % (what, seconds, self.state()))
            time.sleep(0.05)

    def state(self):
        """What is open, and how the programs are: for messages."""
        seen = ["window %s" % self.do("getwindowname", w) for w in self.windows(".+")]
        for program in self.programs:
            status = program.poll()
            seen.append("%s: %s\n%s" % (program.args[0], "running" if status is None else "ended with %d" % status, self.log(program)[-1000:]))
        return "\n".join(seen)

    def appears(self, title, seconds):
        """Does a window of that title come in time?"""
        try:
            return bool(self.wait(lambda: self.windows(title), title, seconds))
        except ScreenError:
            return False

    def window(self, title, seconds=30):
        """The window of a title, once it is there and drawn."""
        found = self.wait(lambda: self.windows(title), "the window " + title, seconds)[0]
        self.settle()
        return found

    def place(self, window, width, height, x=0, y=0):
        self.do("windowsize", window, width, height)
        self.do("windowmove", window, x, y)
        shape = "%dx%d" % (width, height)
        self.wait(lambda: shape in self.do("getwindowgeometry", window), "a window of " + shape, 10)
        self.settle()

    def settle(self, seconds=3):
        """Waits until what is seen stays as it is for a moment (a cursor may blink on)."""
        end, last = time.monotonic() + seconds, None
        while time.monotonic() < end:
            seen = subprocess.run(["import", "-window", "root", "-depth", "8", "rgb:-"], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            now = hashlib.sha1(seen.stdout).hexdigest()
            if now == last:
                return
            last = now
            time.sleep(0.15)

    def click(self, x, y, times=1):
        self.do("mousemove", x, y)
        self.do("click", "--repeat", times, "--delay", 80, 1)
        self.settle()

    def type(self, text):
        self.do("type", "--delay", 4, text)
        self.settle()

    def key(self, *names):
        for name in names:
            self.do("key", name)
        self.settle()

    def picture(self, path, window="root"):
        subprocess.run(["import", "-window", window, str(path)], env=self.env, check=True)


class Form:
    """The window of an application in otbgui or Monteverdi, at the upper left of a screen or moved from there."""

    def __init__(self, screen, name, seconds=30):
        self.screen, self.name = screen, name
        self.window = screen.window("^%s - OTB" % name, seconds)
        self.x = self.y = 0

    def place(self, width, height, x=0, y=0):
        self.x, self.y = x, y
        self.screen.place(self.window, width, height, x, y)

    def shape(self):
        found = re.search(r"Geometry: (\d+)x(\d+)", self.screen.do("getwindowgeometry", self.window))
        return int(found.group(1)), int(found.group(2))

    def is_open(self):
        return bool(self.screen.windows("^%s - OTB" % self.name))

    def click(self, x, y):
        self.screen.click(self.x + x, self.y + y)

    def answer(self, title, text):
        """Types a file name into a dialogue and waits until it closes."""
        self.screen.window(title)
        self.screen.type(text)
        self.screen.key("Return")
        self.screen.wait(lambda: not self.screen.windows(title), "the end of the dialogue " + title, 10)
        self.screen.settle()

    def load(self, path):
        """Application, Load from XML: the parameters of a run that -outxml saved."""
        for _ in range(3):
            self.screen.do("windowfocus", self.window)
            self.click(42, 11)
            self.screen.key("Down", "Down", "Return")
            if self.screen.appears("^Load from XML", 5):
                break
            self.screen.key("Escape")
        self.answer("^Load from XML", str(path))
        self.screen.do("windowfocus", self.window)

    def add_file(self, y, path):
        """Adds a file to the list whose + is at that height."""
        for _ in range(3):
            self.click(self.shape()[0] - 69, y)
            if self.screen.appears("^Select input filename", 5):
                break
        self.answer("^Select input filename", str(path))

    def fill(self, y, text):
        """Replaces the text of the line at that height."""
        self.screen.do("windowfocus", self.window)
        self.click(400, y)
        self.screen.key("ctrl+a")
        self.screen.type(str(text))

    def execute(self):
        width, height = self.shape()
        self.screen.do("windowfocus", self.window)
        self.click(width - 57, height - 47)


def open_in_monteverdi(screen, name):
    """Opens an application from the browser of a Monteverdi of 1270 x 1000 pixels, started with -a."""
    screen.do("windowfocus", screen.windows("^Monteverdi")[0])
    for _ in range(3):
        screen.click(1096, 333)  # the tab of the browser
        screen.click(1000, 94)  # its search
        screen.key("ctrl+a")
        screen.type(name)
        screen.click(900, 153, times=2)  # the first hit, below its group
        try:
            return Form(screen, name, seconds=8)
        except ScreenError:
            pass
    raise ScreenError("%s is not among Monteverdi's applications" % name)


def fill_pair(form, folder):
    """The demonstration pair, its model and a file for the map, as a user gives them; the map's name."""
    form.place(900, 860, form.x, form.y)
    form.add_file(117, folder / "date1.tif")
    form.add_file(272, folder / "date2.tif")
    form.fill(398, folder / "demo-l7.pt")
    form.fill(690, folder / "change.tif")
    return folder / "change.tif"


def run_pair(screen, form, folder):
    out = fill_pair(form, folder)
    form.execute()
    screen.wait(out.exists, "the change map", 120)
    # The window takes a second to be ready for the next run.
    time.sleep(1.5)
    screen.settle()


def joined(out, *pictures):
    """One below the other."""
    subprocess.run(["convert"] + [str(p) for p in pictures] + ["-append", "-strip", str(out)], check=True)


def otbgui_picture(folder, out):
    """otbgui after a run: its parameters, and below them its log."""
    with Screen(900, 860) as screen, tempfile.TemporaryDirectory() as parts:
        screen.start(launch.launcher("SiameseCD").replace("otbcli_", "otbgui_"))
        form = Form(screen, "SiameseCD")
        run_pair(screen, form, folder)
        pictures = [pathlib.Path(parts) / name for name in ("parameters.png", "log.png")]
        screen.picture(pictures[0])
        form.place(900, 560)
        form.click(130, 46)
        screen.picture(pictures[1], form.window)
        joined(out, *pictures)


def monteverdi_picture(folder, out):
    """Monteverdi after a run: both dates and the map that it loaded by itself."""
    with Screen(1900, 1000) as screen:
        screen.start("monteverdi", "-a", folder / "date1.tif", folder / "date2.tif", OTB_APPLICATION_PATH=every_application())
        main = screen.window("^Monteverdi - ")
        screen.place(main, 1270, 1000)
        form = open_in_monteverdi(screen, "SiameseCD")
        form.x, form.y = 990, 60
        run_pair(screen, form, folder)
        screen.place(main, 1900, 1000)
        screen.do("windowfocus", main)
        screen.click(144, 39)  # zoom to all layers
        screen.do("windowraise", form.window)
        screen.settle()
        screen.picture(out)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="otbtorch.demo_gui", description=__doc__.splitlines()[0])
    parser.add_argument("--date1", required=True, help="first date of the demonstration pair")
    parser.add_argument("--date2", required=True, help="second date")
    parser.add_argument("--model", required=True, help="demo-l7.pt")
    parser.add_argument("--otbgui", metavar="PNG", help="picture to write")
    parser.add_argument("--monteverdi", metavar="PNG", help="picture to write")
    args = parser.parse_args(argv)
    lacking = missing("otbgui", "monteverdi")
    if lacking:
        raise SystemExit("not installed: " + " ".join(lacking))
    folder = pathlib.Path(tempfile.gettempdir()) / "otbtorch-demo"  # is seen in the pictures: always the same
    folder.mkdir(mode=0o700)
    try:
        for path, to in ((args.date1, "date1.tif"), (args.date2, "date2.tif"), (args.model, "demo-l7.pt")):
            shutil.copy(path, folder / to)
        for picture, out in ((otbgui_picture, args.otbgui), (monteverdi_picture, args.monteverdi)):
            if out:
                picture(folder, out)
                (folder / "change.tif").unlink()
                print("wrote " + out)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
