"""Short and long runs of the fuzzers, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("first", "count"), [(0, 150), pytest.param(10_000, 10_000, marks=pytest.mark.slow)]
)
def test_mutated_weights_and_states(first: int, count: int) -> None:
    script = Path(__file__).parent / "fuzz_weights.py"
    done = subprocess.run(
        [sys.executable, str(script), str(count), str(first)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + count,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} files, ")
