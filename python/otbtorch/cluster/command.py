"""The command line of ``otbtorch-run``."""

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import sys
import time

from . import ClusterError

EPILOG = """\
After -- comes the command line of the application, with {column} where the tiles differ:

  otbtorch-run SiameseCD --tiles tiles.csv --out maps --workers 4 -- \\
    -in1 {before} -in2 {after} -model m.pt -out {out} -proba {out}
  otbtorch-run TimeSeriesClassify --windows 2048 --out labels.tif -- -in stack.tif ... -out {out}

{out} stands for <id>/<parameter>.tif. Exit codes: 0 all done, 1 some jobs failed, 2 nothing could
begin, 130 stopped. Run the same command again to go on.
"""

MOST_REASONS = 20


def add_arguments(parser):
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.usage = (
        "otbtorch-run APPLICATION --out DIR (--tiles|--stac|--windows) ... -- -key value ..."
    )
    add = parser.add_argument
    add("application", nargs="?", help="SiameseCD, TimeSeriesClassify, ChangeLikelihood ...")
    add("--out", metavar="DIR", help="where results go; with --windows also FILE.tif")
    add("--tiles", metavar="CSV", help="a tile a line, columns named in the first; id names it")
    add("--stac", metavar="JSON", help="a tile an item: a collection, an item, a folder of items")
    add("--stac-group", metavar="PROPERTY", help="a tile for each value of it, of several items")
    add("--windows", metavar="N|WxH|auto", help="parts of one image, in pixels")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="processes here (default: 2), or jobs in the queue; 0: no dask",
    )
    add("--scheduler", metavar="URL", help="a dask scheduler that is running, tcp://host:8786")
    add("--slurm", nargs="*", metavar="K=V", help="dask-jobqueue: cores=8 memory=32GB queue=...")
    add("--pbs", nargs="*", metavar="K=V", help="the same for PBS")
    add("--gpus", type=int, default=0, metavar="N", help="a worker for each of N GPUs")
    add("--threads", type=int, metavar="N", help="of an application; default: cores / workers")
    add("--retries", type=int, default=2, metavar="N", help="of a job (default: 2)")
    add("--format", choices=("tiff", "cog"), default="tiff", help="of the maps (default: tiff)")
    add("--checksum", action="store_true", help="know images by content, not by size and date")
    add("--keep-windows", action="store_true", help="after they are assembled")
    add("--no-vrt", action="store_true", help="no VRT over the tiles")
    add("--timeout", type=int, default=30, metavar="S", help="for --scheduler to answer")
    add("--dry-run", action="store_true", help="say what would be done")
    add("--print-array", choices=("slurm", "pbs"), help="print a script that submits a job array")
    add("--plan", metavar="FILE", help="what --print-array wrote, instead of all the above")
    add("--job", type=int, metavar="K", help="of the plan: do this one")
    add("--assemble", action="store_true", help="of the plan: join what the jobs made")
    parser.set_defaults(words=[])


def split_words(argv):
    """``(words before --, words after it)``."""
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


# -------------------------------------------------------------------------------------------------
# The plan


@dataclasses.dataclass
class Plan:
    """All jobs of a command line, and what becomes of their results."""

    application: str
    folder: str
    state: str
    format: str
    jobs: list
    threads: int = 0  # 0: what the machine has for each job
    finals: list = dataclasses.field(default_factory=list)  # maps of windows; empty: tiles
    grid: dict = dataclasses.field(default_factory=dict)
    keep: bool = False
    vrt: bool = True

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    @staticmethod
    def read(path):
        try:
            return Plan(**json.loads(pathlib.Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ClusterError(f"--plan: {path} is no plan of --print-array: {error}") from error


def cores():
    return len(os.sched_getaffinity(0))


def _check(args):
    """Raises ClusterError for words that do not go together."""
    if not args.application:
        raise ClusterError("which application? otbtorch-run SiameseCD ... (otbtorch-run --help)")
    if not args.out:
        raise ClusterError("--out is missing: the folder of the results")
    sources = [k for k in ("tiles", "stac", "windows") if getattr(args, k)]
    if len(sources) != 1:
        raise ClusterError("one of --tiles, --stac and --windows is needed, and one only")
    if args.stac_group and not args.stac:
        raise ClusterError("--stac-group goes with --stac")
    places = [k for k in ("scheduler", "slurm", "pbs") if getattr(args, k) is not None]
    if len(places) > 1:
        raise ClusterError("--scheduler, --slurm and --pbs: one of them only")
    for kind in ("slurm", "pbs"):
        _settings(getattr(args, kind) or [], kind)
    if args.scheduler and args.workers is not None:
        raise ClusterError("--workers: with --scheduler there are as many as it has")
    for key, least in (("workers", 0), ("threads", 1), ("gpus", 0), ("retries", 0)):
        value = getattr(args, key)
        if value is not None and value < least:
            raise ClusterError(f"--{key}: found {value}; expected {least} or more")
    if args.gpus and args.workers not in (None, args.gpus) and not places:
        raise ClusterError(
            f"--workers {args.workers} with --gpus {args.gpus}: a GPU has one worker"
        )


def _folders(args):
    """(folder, state, the file that --out names)"""
    out = pathlib.Path(args.out).absolute()
    single = out.suffix.lower() in (".tif", ".tiff") and not out.is_dir()
    if single and not args.windows:
        raise ClusterError(f"--out {args.out}: tiles are written into a folder, not a file")
    folder = out.parent if single else out
    state = folder / f"{out.stem}.jobs" if single else folder / "jobs"
    return folder, state, out if single else None


def make_plan(args):
    """``(Plan, notes)`` of a command line. Raises ClusterError; writes nothing."""
    from . import jobs as planning
    from . import stac
    from .applications import application

    _check(args)
    app = application(args.application)
    words = planning.parse_words(args.words, app)
    folder, state, single = _folders(args)
    request = planning.Request(app, words, folder, state, args.format, args.checksum)
    if args.format == "cog" and ("featurestype", ["int8"]) in words:
        raise ClusterError(
            "--format cog: GDAL's COG holds no signed bytes: -featurestype float, or --format tiff"
        )
    plan = Plan(app.name, str(folder), str(state), args.format, [], args.threads or 0)
    plan.keep, plan.vrt = args.keep_windows, not args.no_vrt
    if args.windows:
        side = planning.parse_side(args.windows)
        workers = args.gpus or args.workers or cores()
        plan.jobs, assembly, notes = planning.window_jobs(request, side, workers, single)
        plan.finals, plan.grid = assembly["finals"], assembly["grid"]
        return plan, notes
    where = f"--tiles {args.tiles}" if args.tiles else f"--stac {args.stac}"
    tiles = planning.read_csv(args.tiles) if args.tiles else stac.tiles(args.stac, args.stac_group)
    plan.jobs = planning.tile_jobs(request, tiles, where)
    return plan, []


def make_folders(plan):
    """Makes the folders of a plan. Raises ClusterError where they cannot be written."""
    for path in (plan.folder, plan.state):
        try:
            os.makedirs(path, exist_ok=True)
            probe = os.path.join(path, f".otbtorch-{os.getpid()}.part")
            with open(probe, "w", encoding="utf-8"):
                pass
            os.unlink(probe)
        except OSError as error:
            raise ClusterError(f"--out: {path} cannot be written: {error.strerror}") from error


def _check_owner(plan):
    """Refuses a folder with results of another application: records and virtual rasters would mix."""
    from . import jobs as planning

    for job in plan.jobs:
        record = planning.read_record(planning.record_of(job)) or {}
        other = record.get("description", {}).get("application", plan.application)
        if other != plan.application:
            raise ClusterError(f"--out: {plan.folder} holds results of {other}: take another folder")


@contextlib.contextmanager
def alone(plan):
    """Holds the folder, so that two commands do not work on it at once."""
    with open(os.path.join(plan.state, "lock"), "w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise ClusterError(
                    f"another otbtorch-run is at work in {plan.folder}: wait for it, or take another --out"
                ) from error
            # A file system without locks: the names of attempts and of runs must do.
        yield


@contextlib.contextmanager
def sharing(plan, name):
    """Holds one job of an array: others of the array may run, the same one and commands may not."""
    (pathlib.Path(plan.state) / "locks").mkdir(parents=True, exist_ok=True)
    with open(os.path.join(plan.state, "lock"), "a", encoding="utf-8") as whole, open(
        os.path.join(plan.state, "locks", name), "w", encoding="utf-8"
    ) as own:
        for stream, kind in ((whole, fcntl.LOCK_SH), (own, fcntl.LOCK_EX)):
            try:
                fcntl.flock(stream, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise ClusterError(f"another otbtorch-run is at work on {name} in {plan.folder}") from error
        yield


# -------------------------------------------------------------------------------------------------
# What is finished


def _digests(plan):
    """``{id: (digest, why it must be computed or None)}``"""
    from . import jobs as planning

    known, found = {}, {}
    for job in plan.jobs:
        description = planning.describe(job, known)
        found[job["id"]] = (planning.digest(description), planning.pending(job, description))
    return found


def _assembly_digest(plan, digests):
    # The parts of windows go once they are joined; of tiles it counts which are there.
    made = [d for d, why in digests.values() if plan.finals or why is None]
    text = json.dumps([plan.finals, plan.format, sorted(made)])
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _assembled(plan, digest):
    """Are the maps of all windows there, made from these very windows?"""
    from . import jobs as planning

    record = planning.read_record(os.path.join(plan.state, "assembled.json"))
    try:
        return (
            record is not None
            and record["hash"] == digest
            and all(os.path.getsize(f) == size for f, size in record["files"].items())
        )
    except OSError:
        return False


def assemble(plan):
    """Joins what the jobs made. Returns ``(files, ids of jobs that are not finished)``."""
    from . import jobs as planning
    from .assemble import MapError, join_tiles, join_windows

    digests = _digests(plan)
    missing = [name for name, (_, why) in digests.items() if why is not None]
    files = []
    try:
        if plan.finals:
            digest = _assembly_digest(plan, digests)
            if _assembled(plan, digest):
                return [], []
            if missing:
                return [], missing
            for final in plan.finals:
                parts = [
                    (os.path.join(job["folder"], job["id"], final["key"] + ".tif"), job["window"])
                    for job in plan.jobs
                ]
                files += join_windows(
                    parts,
                    plan.grid,
                    os.path.join(plan.folder, final["name"]),
                    plan.format,
                    planning.creation_options(final["options"]),
                )
            record = {"hash": digest, "files": {f: os.path.getsize(f) for f in files}}
            planning.write_whole(
                os.path.join(plan.state, "assembled.json"), json.dumps(record, indent=1) + "\n"
            )
            if not plan.keep:
                shutil.rmtree(os.path.join(plan.state, "windows"), ignore_errors=True)
        elif plan.vrt:
            digest = _assembly_digest(plan, digests)
            if _assembled(plan, digest):
                return [], missing
            keys = dict.fromkeys(o["key"] for o in plan.jobs[0]["outputs"] if o["map"])
            for key in keys:
                paths = [
                    os.path.join(plan.folder, o["name"])
                    for job in plan.jobs
                    for o in job["outputs"]
                    if o["key"] == key and job["id"] not in missing
                ]
                files += join_tiles(plan.folder, key, paths) if len(paths) > 1 else []
            record = {"hash": digest, "files": {f: os.path.getsize(f) for f in files}}
            planning.write_whole(
                os.path.join(plan.state, "assembled.json"), json.dumps(record, indent=1) + "\n"
            )
    except MapError as error:
        raise ClusterError(f"the results cannot be joined: {error}") from error
    return files, missing


# -------------------------------------------------------------------------------------------------
# Commands


def _settings(pairs, kind):
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ClusterError(
                f'--{kind}: found "{pair}"; expected KEY=VALUE, as cores=8 memory=32GB'
            )
        options[key.replace("-", "_")] = int(value) if value.isdigit() else value
    return options


def _run_jobs(args, plan, jobs, run, progress):
    from . import schedule

    workers = args.gpus or (2 if args.workers is None else args.workers)
    if args.slurm is not None or args.pbs is not None:
        kind = "slurm" if args.slurm is not None else "pbs"
        options = _settings(args.slurm if kind == "slurm" else args.pbs, kind)
        place = schedule.queued(kind, options, workers, gpu=args.gpus > 0)
        threads, together = args.threads or 1, None
    elif args.scheduler:
        place = schedule.existing(args.scheduler, args.timeout)
        threads, together = args.threads or 1, None
    else:
        workers = min(workers, len(jobs))
        threads = args.threads or max(1, cores() // max(1, workers))
        together = max(1, workers)
        if workers * threads > cores():
            progress.say(
                f"{workers} workers of {threads} threads on {cores()} cores: slower than fewer"
            )
        if workers == 0:
            return schedule.run_here(jobs, threads, args.retries, run, progress)
        place = schedule.local(workers, min(args.gpus, workers), args.retries)
    with place as client:
        if args.scheduler:
            schedule.check_workers(client, plan.application, plan.state, run, args.gpus > 0)
        return schedule.run_on(
            client, jobs, threads, args.retries, run, progress, together, gpu=args.gpus > 0
        )


def _failures(plan, results):
    failed = [r for r in results.values() if r["state"] not in ("done", "skipped")]
    if not failed:
        return 0
    width = max(len(r["id"]) for r in failed)
    print(f"{len(failed)} of {len(plan.jobs)} failed:")
    print(f"  {'id'.ljust(width)}  tried  reason")
    for result in failed:
        print(f"  {result['id'].ljust(width)}  {result['attempts']:5d}  {result['reason']}")
    print(f"What each application printed: {os.path.join(plan.state, '<id>.log')}")
    return 1


def _run(args, plan, notes):
    from . import schedule
    from .execute import begin, remove_parts

    make_folders(plan)
    _check_owner(plan)
    with alone(plan):
        run = begin(plan.state)
        remove_parts(plan.state)
        for path in pathlib.Path(plan.state, "windows").glob("*"):
            if path.name not in {job["id"] for job in plan.jobs}:
                shutil.rmtree(path, ignore_errors=True)  # of another cut
        for note in notes:
            print(note)
        digests = _digests(plan)
        noun = "windows" if plan.finals else "tiles"
        if plan.finals and _assembled(plan, _assembly_digest(plan, digests)):
            print(f"All {len(plan.jobs)} windows are finished and assembled: nothing to do")
            return 0
        todo = [job for job in plan.jobs if digests[job["id"]][1] is not None]
        finished = len(plan.jobs) - len(todo)
        print(f"{len(plan.jobs)} {noun}: {finished} finished before, {len(todo)} to do")
        again = [job["id"] for job in todo if digests[job["id"]][1] != "new"]
        for name in again[:MOST_REASONS]:
            print(f"  {name} again: {digests[name][1]}")
        if len(again) > MOST_REASONS:
            print(f"  and {len(again) - MOST_REASONS} more (all: --dry-run)")
        sys.stdout.flush()
        results, start = {}, time.monotonic()
        try:
            if todo:
                results = _run_jobs(args, plan, todo, run, schedule.Progress(len(todo)))
        except KeyboardInterrupt:
            print("\nStopped; what is finished is kept: the same command goes on from there")
            return 130
        finally:
            remove_parts(plan.state)
        code = _failures(plan, results)
        try:
            files, missing = assemble(plan)  # also where nothing was to do: another command may have been
        except KeyboardInterrupt:
            print("\nStopped while joining: the same command goes on from there")
            return 130
        code = code or (1 if missing else 0)
        for file in files:
            print(f"Wrote {file}")
        if plan.finals and missing:
            print(
                "The maps are assembled once all windows are finished: run the same command again"
            )
        if todo:
            print(f"Time: {schedule.clock(time.monotonic() - start)}")
        return code


def _dry_run(plan, notes):
    for note in notes:
        print(note)
    digests = _digests(plan)
    if plan.finals and _assembled(plan, _assembly_digest(plan, digests)):
        print(f"All {len(plan.jobs)} windows are finished and assembled")
        return 0
    for job in plan.jobs:
        print(f"{job['id']}: {digests[job['id']][1] or 'finished'}")
        words = [w for key, values in job["words"] for w in [f"-{key}"] + values]
        box = "" if job["window"] is None else "&box=" + ":".join(map(str, job["window"]))
        for o in job["outputs"]:
            options = o["options"] + box
            options = options if not options or options.startswith("?") else "?" + options
            words += [f"-{o['key']}", os.path.join(job["folder"], o["name"]) + options]
            words += [o["type"]] if o["type"] else []
        print("  " + shlex.join([f"otbcli_{job['application']}", *words]))
    return 0


def _print_array(args, plan, notes):
    from . import jobs as planning
    from .arrays import script

    make_folders(plan)
    path = os.path.join(plan.state, "plan.json")
    planning.write_whole(path, plan.to_json())
    for note in notes:
        print(note, file=sys.stderr)
    print(
        script(
            args.print_array,
            path,
            len(plan.jobs),
            plan.threads or 1,
            plan.application,
            plan.state,
            gpu=args.gpus > 0,
        ),
        end="",
    )
    return 0


def _run_plan(args):
    from .execute import run_job

    plan = Plan.read(args.plan)
    if args.assemble:
        files, missing = assemble(plan)
        for file in files:
            print(f"Wrote {file}")
        if missing:
            print(f"{len(missing)} of {len(plan.jobs)} are not finished: {' '.join(missing)}")
        return 1 if missing else 0
    if args.job is None or not 0 <= args.job < len(plan.jobs):
        raise ClusterError(
            f"--job: found {args.job}; expected 0 to {len(plan.jobs) - 1}, or --assemble"
        )
    threads = plan.threads or 1
    with sharing(plan, plan.jobs[args.job]["id"]):
        result = run_job(plan.jobs[args.job], threads, max(1, cores() // threads))
    print(f"{result['id']}: {result['state']} {result['reason']}".rstrip())
    return 0 if result["state"] in ("done", "skipped") else 1


def command(args):
    """Runs ``otbtorch-run``. Returns its exit code; raises ClusterError before anything began."""
    if args.plan:
        return _run_plan(args)
    if args.job is not None or args.assemble:
        raise ClusterError("--job and --assemble are of a --plan")
    plan, notes = make_plan(args)
    if args.dry_run:
        return _dry_run(plan, notes)
    if args.print_array:
        return _print_array(args, plan, notes)
    return _run(args, plan, notes)
