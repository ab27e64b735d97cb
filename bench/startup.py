"""How long it takes to start: `-help`, DoInit, Monteverdi with and without these applications. See bench/README.md."""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
OURS = ("SiameseCD", "TimeSeriesClassify", "ChangeLikelihood", "ChangeEvaluation")
ORDINARY = ("BandMath", "Smoothing")


def children():
    """Processor seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def helps(build, rounds):
    """Seconds and processor seconds of `otbcli_X -help`, the medians of rounds in which all take turns."""
    path = os.pathsep.join([str(build / "lib/otb/applications"), os.environ.get("OTB_APPLICATION_PATH", "")]).rstrip(os.pathsep)
    times = {name: ([], []) for name in OURS + ORDINARY}
    for _ in range(rounds):
        for name in times:
            before, start = children(), time.monotonic()
            done = subprocess.run(
                ["otbcli", name, "-help"], env=dict(os.environ, OTB_APPLICATION_PATH=path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            times[name][0].append(time.monotonic() - start)
            times[name][1].append(children() - before)
            assert f"This is the {name} application" in done.stdout, done.stdout
    return {name: tuple(statistics.median(t) for t in both) for name, both in times.items()}


def processor(program):
    """Processor seconds that a process has taken."""
    fields = pathlib.Path(f"/proc/{program.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def monteverdi(applications):
    """(seconds to its window, seconds and processor seconds until it rests, is LibTorch mapped?) with its browser of applications."""
    from otbtorch.demo_gui import Screen

    with Screen() as screen:
        start = time.monotonic()
        program = screen.start("monteverdi", "-a", OTB_APPLICATION_PATH=applications)
        screen.wait(lambda: screen.windows("^Monteverdi"), "Monteverdi")
        window = time.monotonic() - start
        # The browser is filled behind the window: at rest is a process that takes no time for a second.
        used, since = processor(program), time.monotonic()
        while time.monotonic() - since < 1:
            time.sleep(0.02)
            now = processor(program)
            if now - used > 0.02:
                used, since = now, time.monotonic()
        maps = pathlib.Path(f"/proc/{program.pid}/maps").read_text()
    return window, since - start, used, "libtorch" in maps


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    parser.add_argument("--rounds", type=int, default=15, help="of -help (default: 15); a third as many of Monteverdi")
    args = parser.parse_args()
    build = args.build.resolve()
    os.environ.setdefault("OTBTORCH_BIN", str(build / "bin"))

    taken = helps(build, args.rounds)
    usual = [statistics.mean(taken[name][k] for name in ORDINARY) for k in (0, 1)]
    print("| `otbcli_X -help` | ms | processor ms | ratio to BandMath and Smoothing | processor ratio |")
    print("|---|---|---|---|---|")
    for name, (wall, cpu) in taken.items():
        print(f"| {name} | {wall * 1000:.0f} | {cpu * 1000:.0f} | {wall / usual[0]:.2f} | {cpu / usual[1]:.2f} |")

    from otbtorch import demo_gui

    program = build / "bin" / "otbdlStartup"
    if program.exists():
        print("\n| application | created, its library loaded first (ms) | created again: DoInit (ms) | LibTorch |")
        print("|---|---|---|---|")
        for name in OURS + ORDINARY:
            done = subprocess.run([str(program), demo_gui.every_application(), name], stdout=subprocess.PIPE, text=True, check=True)
            _, first, again, torch = done.stdout.split()
            print(f"| {name} | {first} | {again} | {'loaded' if torch == '1' else 'not loaded'} |")

    lacking = demo_gui.missing("otbgui", "monteverdi")
    if lacking:
        print("\nMonteverdi: " + " ".join(lacking) + " is not installed")
        return
    every = demo_gui.every_application()
    own = every.split(":", 1)[1]
    print("\n| Monteverdi with | window (s) | at rest, applications listed (s) | processor s | LibTorch |")
    print("|---|---|---|---|---|")
    paths = {"OTB's applications": own, "these as well": every}
    runs = {name: [] for name in paths}
    for _ in range(max(3, args.rounds // 3)):
        for name, path in paths.items():
            runs[name].append(monteverdi(path))
    rows = []
    for name, taken in runs.items():
        columns = list(zip(*taken))
        rows.append([statistics.median(column) for column in columns[:3]])
        window, rest, cpu = rows[-1]
        print(f"| {name} | {window:.2f} | {rest:.2f} | {cpu:.2f} | {'loaded' if any(columns[3]) else 'not loaded'} |")
    print("| ratio | " + " | ".join(f"{rows[1][k] / rows[0][k]:.2f}" for k in range(3)) + " | |")


if __name__ == "__main__":
    main()
