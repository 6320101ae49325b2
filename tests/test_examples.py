"""The examples run."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_python_api_without_an_argument(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "python_api.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, *files = done.stdout.splitlines()
    assert first.startswith("face 1: ")
    assert files == ["aged5.png", "aged70.png"]
    assert all((tmp_path / file).is_file() for file in files)
