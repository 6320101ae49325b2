"""Starting Python programs, alone or in two processes under torchrun."""

import os
import subprocess
import sys
from pathlib import Path

import faceage

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


def run_process(*arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of Python in a separate process with one thread."""
    root = str(Path(faceage.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path},
    )
    return result.returncode, result.stdout, result.stderr


def run_python(*arguments: object) -> str:
    """The output of Python in a separate process, which must end well."""
    code, out, err = run_process(*arguments)
    assert code == 0, err[-3000:]
    return out
