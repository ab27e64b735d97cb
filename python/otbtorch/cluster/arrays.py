"""Job arrays of SLURM and PBS, for sites without dask: a script that submits both steps.

The script holds no options of the run: these lie in the plan beside the results, so that nothing
has to be quoted twice. Each task runs ``otbtorch-run --plan FILE --job K``, the last job
``otbtorch-run --plan FILE --assemble`` once all have ended.
"""

import os
import shlex
import sys

from .schedule import search_path

_KEPT = ("OTBTORCH_BIN", "OTB_APPLICATION_PATH", "LD_LIBRARY_PATH", "PATH")

_SLURM = """#!/bin/sh
# Submits {count} jobs and the one that assembles their results: sh this-script
# More options for sbatch (account, partition, memory, time): in SBATCH_OPTIONS.
set -eu
array=$(sbatch --parsable ${{SBATCH_OPTIONS:-}} --job-name={name} --array=0-{last} --ntasks=1 \\
  --cpus-per-task={threads}{gpu} --output={state}/array-%a.out <<'EOF'
#!/bin/sh
{environment}
exec {command} --job "$SLURM_ARRAY_TASK_ID"
EOF
)
sbatch ${{SBATCH_OPTIONS:-}} --job-name={name}-assemble --dependency="afterany:${{array%%;*}}" \\
  --ntasks=1 --output={state}/assemble.out <<'EOF'
#!/bin/sh
{environment}
exec {command} --assemble
EOF
"""

_PBS = """#!/bin/sh
# Submits {count} jobs and the one that assembles their results: sh this-script
# More options for qsub (queue, project, memory, time): in QSUB_OPTIONS.
set -eu
array=$(qsub ${{QSUB_OPTIONS:-}} -N {name} {range}-l select=1:ncpus={threads}{gpu} -j oe -o {state} <<'EOF'
#!/bin/sh
{environment}
exec {command} --job "${{PBS_ARRAY_INDEX:-0}}"
EOF
)
qsub ${{QSUB_OPTIONS:-}} -N {name}-asm -W depend=afterany:"$array" -j oe -o {state} <<'EOF'
#!/bin/sh
{environment}
exec {command} --assemble
EOF
"""


def script(kind, plan_file, count, threads, application, state, gpu=False):
    """The text of a script that submits ``count`` jobs to ``slurm`` or ``pbs``."""
    variables = dict({k: os.environ[k] for k in _KEPT if k in os.environ}, PYTHONPATH=search_path())
    # Tasks begin in another folder.
    variables = {
        k: os.pathsep.join(os.path.abspath(p) for p in v.split(os.pathsep) if p)
        for k, v in variables.items()
    }
    command = [
        sys.executable or "/usr/bin/python3",
        "-m",
        "otbtorch",
        "run",
        "--plan",
        str(plan_file),
    ]
    values = {
        "count": count,
        "last": count - 1,
        "threads": max(1, threads),
        "name": f"otbtorch-{application}",
        "state": shlex.quote(str(state)),
        "environment": "\n".join(f"export {k}={shlex.quote(v)}" for k, v in variables.items()),
        "command": " ".join(shlex.quote(word) for word in command),
    }
    if kind == "slurm":
        return _SLURM.format(gpu=" --gpus-per-task=1" if gpu else "", **values)
    # PBS takes no array of one.
    values["range"] = f"-J 0-{count - 1} " if count > 1 else ""
    return _PBS.format(gpu=":ngpus=1" if gpu else "", **values)
