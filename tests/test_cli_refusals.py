"""Refusals of the command line: results that exist, bad options, bad weights, and bugs."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faceage.checkpoints import read_metadata, save_weights
from faceage.models.generator import FaceAgeModel, ModelConfig

# --- outputs -------------------------------------------------------------------------------------


def test_existing_results_are_refused_before_any_work(
    run, snapshot, astronaut: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "astronaut.age70.jpg").write_text("precious")
    before = snapshot(tmp_path)
    # Weights that do not exist: they are not even looked for.
    arguments = ("age", astronaut, "--to", "5,70", "--out", tmp_path)
    answer = run(*arguments, "--weights", "nonsuch")
    assert answer.code == 1
    assert answer.errors == [
        f"error: {tmp_path / 'astronaut.age70.jpg'} exists already."
        " Use --force to overwrite it, or --out."
    ]
    assert snapshot(tmp_path) == before
    assert run(*arguments, "--weights", tiny_weights, "--force").code == 0
    assert len(list(tmp_path.iterdir())) == 2


def test_existing_crop_of_a_second_face(run, tiny_weights: Path, couple: Path, tmp_path) -> None:
    (tmp_path / "couple.face2.age05.png").write_text("precious")
    answer = run("age", couple, "--weights", tiny_weights, "--to", 5, "--crop", "--out", tmp_path)
    assert answer.code == 1
    assert "couple.face2.age05.png exists already" in answer.err
    assert [path.name for path in tmp_path.iterdir()] == ["couple.face2.age05.png"]


@pytest.mark.parametrize("command", ["age", "predict", "align"])
def test_unwritable_output(run, tiny_weights: Path, astronaut: Path, tmp_path, command) -> None:
    (tmp_path / "file").write_text("not a folder")
    out = tmp_path / "file" / "out"
    options = {
        "age": ["--to", 5, "--weights", tiny_weights, "--out", out],
        "predict": ["--weights", tiny_weights, "--draw", out],
        "align": ["--out", out],
    }[command]
    answer = run(command, astronaut, *options)
    assert answer.code == 1
    assert len(answer.errors) == 1
    assert str(out) in answer.err


def test_two_photos_that_would_write_one_file(run, astronaut: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "me.jpg").write_bytes(astronaut.read_bytes())
    photos = tmp_path / "a" / "me.jpg", tmp_path / "b" / "me.jpg"
    for command in (
        ["age", *photos, "--to", 5, "--out", tmp_path / "out"],
        ["predict", *photos, "--draw", tmp_path / "out"],
        ["align", *photos, "--out", tmp_path / "out"],
    ):
        answer = run(*command)
        assert answer.code == 2
        assert len(answer.errors) == 1
        assert f"{photos[0]} and {photos[1]} would both write" in answer.err
        assert not (tmp_path / "out").exists()


# --- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--to", "-3"], "-3"),
        (["--to", "500"], "500"),
        (["--to", "abc"], "abc"),
        (["--to", "30-20"], "30-20"),
        (["--to", "5,,70"], "''"),
        (["--to", "5", "--face", "first"], "first"),
        (["--to", "5", "--face", "0"], "'0'"),
        (["--to", "5", "--device", "abacus"], "abacus"),
        (["--to", "12.5000001,12.5000002"], "would both write"),
    ],
)
def test_bad_option(run, snapshot, astronaut, tiny_weights, tmp_path, options, says) -> None:
    answer = run("age", astronaut, "--weights", tiny_weights, "--out", tmp_path, *options)
    assert answer.code == 2
    assert len(answer.errors) == 1
    assert says in answer.err
    assert snapshot(tmp_path) == {}


def test_usage_errors(run, astronaut: Path) -> None:
    for arguments in (
        ["nonsuch"],
        ["age", astronaut],  # no --to
        ["predict"],
        ["predict", astronaut, "--nonsuch"],
        ["predict", astronaut, "--min-score", "2"],
        ["predict", astronaut, "--detector", "eyes"],
    ):
        answer = run(*arguments)
        assert answer.code == 2, arguments
        assert answer.out == ""
        assert answer.err != ""
    answer = run("predict", astronaut, "--json", "--csv")
    assert (answer.code, len(answer.errors)) == (2, 1)


def test_a_face_too_many(run, astronaut: Path, tiny_weights: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--face", 7)
    assert answer.code == 1
    assert "no face 7" in answer.err
    assert "only 1 face" in answer.err


# --- weights -------------------------------------------------------------------------------------


def _weights(kind: str, good: Path, model: FaceAgeModel, path: Path) -> None:
    content = good.read_bytes()
    match kind:
        case "truncated":
            path.write_bytes(content[: len(content) // 2])
        case "empty":
            path.touch()
        case "text":
            path.write_text("not weights " * 100)
        case "foreign":
            save_file({"layer.weight": torch.zeros(3, 3)}, path)
        case "pickle":
            torch.save(model.state_dict(), path)
        case "architecture":  # wider than its metadata say
            config = ModelConfig(**(vars(model.config) | {"width": 32}))
            wide = FaceAgeModel(config)
            save_weights(path, wide, {})
            metadata = read_metadata(path) | {"config": read_metadata(good)["config"]}
            save_file(load_file(path), path, metadata)
        case "future":
            config = json.dumps({"size": 32, "telepathy": True})
            save_file(load_file(good), path, read_metadata(good) | {"config": config})
        case "baseline":
            config = ModelConfig(**(vars(model.config) | {"decomposition": False}))
            save_weights(path, FaceAgeModel(config), {})


@pytest.mark.parametrize(
    "kind",
    [
        "missing",
        "truncated",
        "empty",
        "text",
        "foreign",
        "pickle",
        "architecture",
        "future",
        "baseline",
    ],
)
def test_bad_weights(
    run, snapshot, astronaut: Path, tiny_weights: Path, tiny_model, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.safetensors"
    _weights(kind, tiny_weights, tiny_model, path)
    before = snapshot(tmp_path)
    for arguments in (["predict"], ["age", "--to", 5, "--out", tmp_path]):
        answer = run(*arguments, astronaut, "--weights", path)
        assert answer.code == 1
        assert answer.out == ""
        assert len(answer.errors) == 1
        assert path.name in answer.err or kind == "baseline"
        assert snapshot(tmp_path) == before


@pytest.mark.parametrize("kind", ["missing", "truncated", "text"])
def test_bad_weights_info(run, tiny_weights: Path, tiny_model, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{kind}.safetensors"
    _weights(kind, tiny_weights, tiny_model, path)
    answer = run("weights", "info", path)
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert str(path) in answer.err


def test_retinaface_that_was_not_fetched(run, astronaut: Path, tiny_weights: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--detector", "retinaface")
    assert answer.code == 1
    assert answer.errors == [
        "error: The weights 'retinaface' are not on this machine."
        " Get them with: faceage weights fetch retinaface"
    ]


# --- training data -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (None, "Put a csv"),
        ("file,sex\na.png,F\n", "neither a column 'age' nor 'age_group'"),
        ("name,age\na.png,30\n", "file"),
        ("file,age\na.png,old\n", "line 2"),
        ("file,age\na.png,30\n", "a.png is named in the csv but missing"),
        ("file,age,zip\nb.png,30,faces.zip\n", "b.png"),
        ("file,age,zip\na.png,30,gone.zip\n", "gone.zip"),
    ],
)
def test_bad_training_data(run, tmp_path: Path, table: str | None, says: str) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    with zipfile.ZipFile(data / "faces.zip", "w") as archive:
        archive.writestr("a.png", b"")
    if table is not None:
        (data / "faces.csv").write_text(table)
    answer = run("train", "--data", data, "--set", "projected=false", "--out", out)
    assert (answer.code, answer.out, len(answer.errors)) == (1, "", 1)
    assert says in answer.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--recipe", "nonsuch"], "No recipe 'nonsuch'"),
        (["--set", "model.nonsuch=1"], "nonsuch"),
        (["--set", "model.width"], "key=value"),
        (["--set", "model.width=wide"], "wide"),
        (["--set", "model.width=33"], "33"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_training_options(run, tmp_path: Path, options: list[str], says: str) -> None:
    out = tmp_path / "run"
    answer = run("train", "--data", tmp_path, "--out", out, "--recipe", "compact", *options)
    assert (answer.code, answer.out, len(answer.errors)) == (2, "", 1)
    assert says in answer.err
    assert not out.exists()


# --- whatever nobody foresaw ---------------------------------------------------------------------


def test_a_bug_is_one_line_and_the_batch_goes_on(
    run, astronaut: Path, couple: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faceage.cli import jobs

    predict = jobs.predict_photo

    def buggy(ager, path, *rest):
        if path == astronaut:
            raise ZeroDivisionError("two\nlines")
        return predict(ager, path, *rest)

    monkeypatch.setattr(jobs, "predict_photo", buggy)
    answer = run("predict", astronaut, couple, "--weights", tiny_weights, "--json")
    assert answer.code == 1
    assert len(answer.errors) == 2
    assert f"{astronaut}: ZeroDivisionError: two lines (FACEAGE_DEBUG=1" in answer.err
    assert [row.get("face") for row in json.loads(answer.out)] == [1, 2, None]


def test_interrupted(run, astronaut: Path, tiny_weights: Path, monkeypatch) -> None:
    from faceage.cli import jobs

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "predict_photo", interrupt)
    answer = run("predict", astronaut, "--weights", tiny_weights)
    assert (answer.code, answer.out, answer.err) == (130, "", "interrupted\n")


def test_as_a_program(tiny_weights: Path, astronaut: Path, tmp_path: Path) -> None:
    """Once for real: exit codes and streams as a shell sees them."""
    command = [sys.executable, "-m", "faceage"]
    options = ["--weights", str(tiny_weights), "--json"]
    done = subprocess.run(
        [*command, "predict", str(astronaut), str(tmp_path / "nonsuch.jpg"), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert len(json.loads(done.stdout)) == 2
    assert done.stderr.splitlines() == [
        "1 of 2 failed:",
        f"error: No such photo: {tmp_path / 'nonsuch.jpg'}. Check the path.",
    ]
    done = subprocess.run(
        [*command, "age", str(astronaut), "--to=abc"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
