"""Many jobs: on dask.distributed, or one after another in this process.

Who runs what is dask's: a worker that dies (kill -9, a node that is lost) gives its job back, and
a local one is started anew. A job whose application failed is tried again here: always where a
signal ended it, else once, as a second failure for the same reason will not be the last.
"""

import contextlib
import logging
import os
import queue
import sys
import tempfile
import time

from .. import __version__, launch
from . import ClusterError
from .execute import is_current, run_job

REFRESH = 1.0  # seconds between two looks at the workers
NO_DASK = (
    "dask.distributed is not installed: apt-get install python3-distributed, or pip install "
    "distributed. Without it there are --workers 0 (one job after another) and --print-array"
)
NO_JOBQUEUE = "dask-jobqueue is not installed: pip install dask-jobqueue, or take --print-array"


# -------------------------------------------------------------------------------------------------
# Progress


def clock(seconds):
    """75 -> 1:15"""
    seconds = int(round(seconds))
    hours, rest = divmod(seconds, 3600)
    minutes = f"{rest // 60:02d}" if hours else str(rest // 60)
    return (f"{hours}:" if hours else "") + f"{minutes}:{rest % 60:02d}"


class Progress:
    """One line for all jobs: rewritten on a terminal, else printed every few seconds."""

    def __init__(self, total, stream=None, every=15.0):
        self.stream = stream or sys.stdout
        self.total, self.done, self.failed, self.pixels = total, 0, 0, 0
        self.start = self.printed = time.monotonic()
        self.every = every
        self.console = self.stream.isatty()

    def text(self, running):
        elapsed = time.monotonic() - self.start
        words = [f"{self.done}/{self.total} done", f"{running} running"]
        if self.failed:
            words.append(f"{self.failed} failed")
        words.append(clock(elapsed))
        finished = self.done + self.failed
        if finished and finished < self.total:
            words.append(f"about {clock(elapsed / finished * (self.total - finished))} left")
        if self.pixels and elapsed > 0:
            words.append(f"{self.pixels / elapsed / 1e6:.2f} megapixels/s")
        return ", ".join(words)

    def count(self, result):
        if result["state"] in ("done", "skipped"):
            self.done += 1
            self.pixels += result["pixels"]
        else:
            self.failed += 1

    def show(self, running, now=False):
        if self.console:
            print("\r" + self.text(running).ljust(96), end="", file=self.stream, flush=True)
        elif now or time.monotonic() - self.printed >= self.every:
            self.printed = time.monotonic()
            print(self.text(running), file=self.stream, flush=True)

    def say(self, text):
        print(("\r".ljust(98) + "\r" if self.console else "") + text, file=self.stream, flush=True)

    def end(self):
        self.show(0, now=True)
        if self.console:
            print(file=self.stream, flush=True)


# -------------------------------------------------------------------------------------------------
# Attempts


class Attempts:
    """Which jobs are tried again, and what became of each."""

    def __init__(self, retries, progress):
        self.retries, self.progress = retries, progress
        self.reasons, self.results = {}, {}

    def take(self, result):
        """Takes what became of an attempt. Is the job to be tried again?"""
        name, earlier = result["id"], self.reasons.setdefault(result["id"], [])
        if result["state"] == "failed":
            same = result["reason"] in earlier and not result["killed"]
            earlier.append(result["reason"])
            if len(earlier) <= self.retries and not same:
                self.progress.say(f"{name}: {result['reason']}; it is tried again")
                return True
            self.progress.say(f"{name} failed: {result['reason']}")
        result["attempts"] = len(earlier) + (result["state"] != "failed")
        self.results[name] = result
        self.progress.count(result)
        return False


def run_here(jobs, threads, retries, run, progress):
    """One job after another, without dask. Returns ``{id: result}``."""
    attempts = Attempts(retries, progress)
    for job in jobs:
        progress.show(1)
        while attempts.take(run_job(job, threads, 1, run)):
            pass
    progress.end()
    return attempts.results


# -------------------------------------------------------------------------------------------------
# dask


def _dask():
    try:
        import dask
        import distributed
    except ImportError as error:
        raise ClusterError(NO_DASK) from error
    return dask, distributed


def gpu_names(count):
    """What CUDA_VISIBLE_DEVICES is for each of so many workers: one GPU each, of those allowed."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = allowed.split(",") if allowed else [str(k) for k in range(count)]
    if len(names) < count:
        raise ClusterError(
            f"--gpus {count}: CUDA_VISIBLE_DEVICES allows {len(names)} ({allowed}); ask for as many"
        )
    return names[:count]


def search_path():
    """PYTHONPATH with which another process finds this package."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    others = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join([here] + [p for p in others if p and p != here])


@contextlib.contextmanager
def local(workers, gpus, retries):
    """A client of workers on this machine, each a process that takes one job at a time."""
    dask, distributed = _dask()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    specification, scratch = {}, tempfile.TemporaryDirectory(prefix="otbtorch-run-")
    for k in range(gpus or workers):
        options = {
            "local_directory": scratch.name,
            "nthreads": 1,
            "memory_limit": 0,  # what the applications take is held by -ram
            "dashboard": False,
            "silence_logs": logging.CRITICAL,
            "env": {"PYTHONPATH": search_path()},
        }
        if gpus:
            options["env"]["CUDA_VISIBLE_DEVICES"] = gpu_names(gpus)[k]
            options["resources"] = {"GPU": 1}
        specification[k] = {"cls": distributed.Nanny, "options": options}
    scheduler = {
        "cls": distributed.Scheduler,
        "options": {
            "host": "127.0.0.1",
            "port": 0,
            "dashboard": False,
            "dashboard_address": "127.0.0.1:0",
        },
    }
    settings = {
        # As many workers may die under one job, by no fault of its own.
        "distributed.scheduler.allowed-failures": max(3, retries),
        # Threads and allocator of the applications are not dask's to set.
        "distributed.nanny.pre-spawn-environ": {},
        "distributed.nanny.environ": {},
    }
    with scratch, dask.config.set(settings), distributed.SpecCluster(
        workers=specification, scheduler=scheduler, silence_logs=logging.CRITICAL
    ) as cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


@contextlib.contextmanager
def existing(address, timeout):
    """A client of a scheduler that is already there."""
    _, distributed = _dask()
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=timeout, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"--scheduler: nothing answers at {address} within {timeout} s ({error}); is dask-scheduler "
            "running there, and is the port open?"
        ) from error
    with client:
        yield client


@contextlib.contextmanager
def queued(kind, options, workers, gpu=False):
    """A client of workers that SLURM or PBS starts, through dask-jobqueue."""
    _, distributed = _dask()
    try:
        import dask_jobqueue
    except ImportError as error:
        raise ClusterError(NO_JOBQUEUE) from error
    make = {"slurm": dask_jobqueue.SLURMCluster, "pbs": dask_jobqueue.PBSCluster}[kind]
    if gpu:  # jobs ask for it: without it they would wait for ever
        extra = options.get("worker_extra_args", [])
        options = dict(options, worker_extra_args=[*extra, "--resources", "GPU=1"])
    try:
        cluster = make(**options)
    except (TypeError, ValueError) as error:
        raise ClusterError(f"--{kind}: {error}") from error
    with cluster:
        cluster.scale(jobs=workers)
        with distributed.Client(cluster, set_as_default=False) as client:
            yield client


def probe(application, state, run):
    """Runs on a worker: what is missing there; None where nothing is."""
    try:
        launch.launcher(application)
    except launch.LaunchError as error:
        return str(error)
    for _ in range(20):  # a file system may take its time
        if is_current(state, run):
            return None
        time.sleep(0.5)
    return f"{state} is not the same folder there: results need a shared file system"


def check_workers(client, application, state, run, gpu=False):
    """Raises ClusterError where a worker could not do a job."""
    workers = _workers(client)
    if gpu and workers and not any(w["resources"].get("GPU") for w in workers.values()):
        raise ClusterError(
            "--gpus: no worker of this scheduler has the resource GPU: start one for each GPU with "
            '--resources "GPU=1" and its own CUDA_VISIBLE_DEVICES'
        )
    try:
        found = client.run(probe, application, str(state), run)
    except Exception as error:  # whatever a worker without this package raises
        raise ClusterError(
            f"a worker cannot load otbtorch {__version__} ({error}): install it there, or set its "
            "PYTHONPATH"
        ) from error
    faults = [f"{worker}: {reason}" for worker, reason in found.items() if reason]
    if faults:
        raise ClusterError("workers that cannot take a job:\n  " + "\n  ".join(faults))


def _workers(client):
    return client.scheduler_info()["workers"]


def run_on_worker(job, threads, together, run):
    """Runs on a worker: :func:`run_job`, with this worker's share of memory."""
    import distributed

    worker = distributed.get_worker()
    memory = worker.memory_manager.memory_limit or None
    return run_job(job, threads, together or worker.state.nthreads, run, memory)


def run_on(client, jobs, threads, retries, run, progress, together=None, gpu=False):
    """Runs jobs on a client's workers. Returns ``{id: result}``.

    :param together: jobs that share a machine's memory; None: those that share a worker's
    """
    attempts, ended, futures = Attempts(retries, progress), queue.SimpleQueue(), {}
    by_name = {job["id"]: job for job in jobs}
    resources = {"resources": {"GPU": 1}} if gpu else {}

    def submit(job, attempt):
        key = f"{job['id']}-{run[:8]}-{attempt}"
        future = client.submit(
            run_on_worker, job, threads, together, run, key=key, pure=False, **resources
        )
        futures[key] = (job["id"], attempt, future)
        future.add_done_callback(lambda f: ended.put(f.key))

    known, said = set(_workers(client)), None
    for job in jobs:
        submit(job, 1)
    try:
        while futures:
            try:
                key = ended.get(timeout=REFRESH)
            except queue.Empty:
                key = None
            if key in futures:
                name, attempt, future = futures.pop(key)
                if attempts.take(_result(name, future)):
                    submit(by_name[name], attempt + 1)
            workers = _workers(client)
            if known - set(workers):
                progress.say(
                    f"{len(known - set(workers))} worker(s) lost; what they did is done again by others"
                )
            known = set(workers)
            if not workers and said is None:
                said = "no worker yet: waiting for one"
                progress.say(said)
            slots = sum(w["nthreads"] for w in workers.values())
            progress.show(min(len(futures), slots))
    except KeyboardInterrupt:
        client.cancel([f for _, _, f in futures.values()])
        raise
    progress.end()
    return attempts.results


def _result(name, future):
    if future.status == "finished":
        return future.result()
    if future.status == "error":
        error = future.exception()
        killed = type(error).__name__ == "KilledWorker"
        reason = (
            "every worker that took it died: out of memory? Give fewer workers, or less -ram"
            if killed
            else f"{type(error).__name__}: {error}"
        )
    else:
        raise ClusterError(f"the scheduler is gone ({name}: {future.status}); run again to resume")
    return {
        "id": name,
        "state": "failed",
        "reason": reason,
        "killed": False,
        "seconds": 0.0,
        "pixels": 0,
        "host": "",
    }
