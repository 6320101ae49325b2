"""Short and long runs of the fuzzers, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("script", ["fuzz_weights.py", "fuzz_data.py"])
@pytest.mark.parametrize(
    ("first", "count"), [(0, 150), pytest.param(10_000, 10_000, marks=pytest.mark.slow)]
)
def test_mutated_inputs(script: str, first: int, count: int) -> None:
    done = subprocess.run(
        [sys.executable, Path(__file__).parent / script, str(count), str(first)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60 + count,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{count} inputs, ")
