"""One job: run the application, check what it wrote, give it its names, keep a record.

Everything is written into a folder of this attempt (``state/parts/<job>.<random>``) and renamed
when all of it is whole; the record comes last and is what makes a job finished. So a process may
be killed at any moment, and two may work on one job: they rename the same pixels. Nothing is
locked.
"""

import json
import os
import pathlib
import shutil
import socket
import time
import uuid

from .. import launch
from . import ClusterError
from . import jobs as planning
from .applications import application
from .assemble import MapError, map_files, to_cog

MEGABYTE = 1 << 20


def memory_limits(groups="/proc/self/cgroup", root="/sys/fs/cgroup"):
    """Files that limit this process: of its own control group, and of all above it."""
    try:
        lines = pathlib.Path(groups).read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    places = {("", "memory.max", "/"), ("memory", "memory.limit_in_bytes", "/")}
    for _, kinds, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if kinds == "":
            places.add(("", "memory.max", path))
        elif "memory" in kinds.split(","):
            places.add(("memory", "memory.limit_in_bytes", path))
    found = set()
    for kind, name, path in places:
        top = pathlib.Path(root) / kind
        own = top / path.strip("/")
        found |= {folder / name for folder in [own, *own.parents] if folder.is_relative_to(top)}
    return sorted(found)


def machine_memory():
    """Bytes that this process may have: those of the machine, or of its control groups."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in memory_limits():
        try:
            found = min(found, int(limit.read_text()))
        except (OSError, ValueError):
            pass
    return found


def share_of_memory(together, memory=None):
    """Megabytes for -ram where ``together`` applications share so many bytes, or the machine's.

    Half of them: GDAL, LibTorch and weights come on top. More than 2 GB make nothing faster.
    """
    share = (memory or machine_memory()) / 2 / max(1, together) / MEGABYTE
    return int(min(2048, max(256, share)))


def run_job(job, threads, together=1, run=None, memory=None):
    """Runs a job unless it is finished. Returns what became of it; raises nothing that a job can cause.

    :param threads: of the application
    :param together: applications that run side by side (for -ram)
    :param run: name of the invocation that wants it, see :func:`begin`; a job that was left behind
        by an earlier one writes nothing any more
    :param memory: bytes that they share; None: the machine's
    :returns: ``{id, state: done|skipped|failed|superseded, reason, seconds, pixels, host,
        killed}``; ``reason`` is the application's own, ``killed`` says that a signal ended it
    """
    start = time.monotonic()
    result = {"id": job["id"], "host": socket.gethostname(), "pixels": 0, "killed": False}

    def end(state, reason=""):
        return dict(result, state=state, reason=reason, seconds=time.monotonic() - start)

    state = pathlib.Path(job["state"])
    part = state / "parts" / f"{job['id']}.{uuid.uuid4().hex}"
    try:
        description = planning.describe(job)
        if planning.pending(job, description) is None:
            return end("skipped")
        remove_parts(state, job["id"])
        part.mkdir(parents=True)
        log = _run_application(job, threads, share_of_memory(together, memory), part)
        files, result["pixels"] = _check(job, part)
        if not is_current(state, run):
            return end("superseded", "another invocation has begun since")
        _publish(job, description, part, files, log, time.monotonic() - start)
        return end("done")
    except launch.LaunchError as error:
        code = error.returncode
        result["killed"] = code is not None and (code < 0 or code >= 128)
        _keep_log(state, job["id"], error.log)
        signal = -code if result["killed"] and code < 0 else (code or 0) - 128
        reason = (
            f"{job['application']} was ended by signal {signal}" if result["killed"] else str(error)
        )
        return end("failed", reason)
    except (OSError, MapError, ClusterError) as error:
        return end("failed", str(error))
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _run_application(job, threads, ram, part):
    """Runs it into the folder of the attempt. Returns its log."""
    words = dict((key, values) for key, values in job["words"])
    if "ram" not in words and "ram" in application(job["application"]).keys:
        words["ram"] = ram
    box = "" if job["window"] is None else "&box=" + ":".join(map(str, job["window"]))
    for output in job["outputs"]:
        path = part / output["name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        options = output["options"] + box
        options = options if not options or options.startswith("?") else "?" + options
        words[output["key"]] = [str(path) + options] + ([output["type"]] if output["type"] else [])
    count = str(max(1, threads))
    log = launch.run(
        job["application"],
        words,
        env={"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": count, "OMP_NUM_THREADS": count},
        cwd=job["cwd"],
        guarded=True,
    )
    folder = pathlib.Path(job["folder"])
    for output in job["outputs"]:
        if output["key"] == "outxml":  # it names the files of the attempt
            path = part / output["name"]
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace(str(part), str(folder)), encoding="utf-8")
    return log


def _check(job, part):
    """``({name: path}, pixels)`` of all files, once each output is seen to be whole."""
    pixels = 0
    for output in job["outputs"]:
        path = part / output["name"]
        if not path.is_file():
            raise MapError(f"-{output['key']}: the application ended well but wrote no {path.name}")
        if output["map"]:
            size = map_files(path).size
            if job["window"] is not None and size != tuple(job["window"][2:]):
                raise MapError(
                    f"-{output['key']}: {size[0]} x {size[1]} pixels were written for a window of "
                    f"{job['window'][2]} x {job['window'][3]}: the maps lie on another grid"
                )
            pixels = max(pixels, size[0] * size[1])
            if job["format"] == "cog":
                to_cog(path, planning.creation_options(output["options"]))
    files = {str(p.relative_to(part)): p for p in sorted(part.rglob("*")) if p.is_file()}
    return files, pixels


def _left_beside(record, mains):
    """Files of an earlier run that lay beside outputs which are written again.

    Its own outputs stay, whatever they are called: another command may have wanted them.
    """
    kept = {output[1] for output in record.get("description", {}).get("outputs", [])}
    stems = {os.path.splitext(name)[0] + "." for name in mains}
    return {n for n in record.get("files", {}) if n not in kept and n.startswith(tuple(stems))}


def _publish(job, description, part, files, log, seconds):
    folder = pathlib.Path(job["folder"])
    path = planning.record_of(job)
    before = planning.read_record(path)
    path.unlink(missing_ok=True)  # from here on the files are not those that it speaks of
    mains = {o["name"] for o in job["outputs"]}
    for name in _left_beside(before or {}, mains) - set(files):
        (folder / name).unlink(missing_ok=True)
    sizes = {}
    # What lies beside a map comes before the map.
    for name in sorted(files, key=lambda n: (n in mains, n)):
        sizes[name] = files[name].stat().st_size
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.replace(files[name], folder / name)
    _keep_log(pathlib.Path(job["state"]), job["id"], log)
    record = {
        "id": job["id"],
        "hash": planning.digest(description),
        "description": description,
        "files": sizes,
        "seconds": round(seconds, 2),
        "host": socket.gethostname(),
    }
    planning.write_whole(path, json.dumps(record, indent=1, sort_keys=True) + "\n")


def _keep_log(state, name, text):
    try:
        planning.write_whole(state / f"{name}.log", text)
    except OSError:
        pass  # a full disk: the reason is on its way by itself


def remove_parts(state, name=None):
    """Removes what killed attempts left: of one job, or all."""
    for folder in (pathlib.Path(state) / "parts").glob("*"):
        if name is None or folder.stem == name:  # the rest is random
            shutil.rmtree(folder, ignore_errors=True)
    if name is None:
        for file in pathlib.Path(state).glob(".*.part"):
            file.unlink(missing_ok=True)


def begin(state):
    """Names this invocation the one that writes. Returns its name."""
    name = uuid.uuid4().hex
    planning.write_whole(pathlib.Path(state) / "run", name)
    return name


def is_current(state, run):
    if run is None:
        return True
    try:
        return (pathlib.Path(state) / "run").read_text(encoding="utf-8") == run
    except OSError:
        return False
