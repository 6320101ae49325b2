"""faceage predict."""

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceage.ages import GROUP_NAMES
from faceage.cli.output_formats import CSV_COLUMNS


def test_predict_prints_a_table(run, tiny_weights: Path, couple: Path) -> None:
    answer = run("predict", couple, "--weights", tiny_weights)
    assert answer.code == 0
    assert answer.err == ""
    rows = [line.split() for line in answer.lines if "couple.png" in line]
    assert [row[1] for row in rows] == ["1", "2"]
    for row in rows:
        assert 0 <= float(row[2]) <= 100
        assert row[-2] in GROUP_NAMES
        assert row[-1].endswith("%")


def test_predict_json(run, tiny_weights: Path, couple: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    answer = run("predict", couple, tmp_path / "noise.png", "--weights", tiny_weights, "--json")
    assert answer.code == 1
    *faces, failed = json.loads(answer.out)
    assert [face["face"] for face in faces] == [1, 2]
    for face in faces:
        assert list(face) == [
            "file",
            "face",
            "age",
            "interval",
            "group",
            "probabilities",
            "box",
            "score",
        ]
        assert face["file"] == str(couple)
        low, high = face["interval"]
        assert 0 <= low <= face["age"] <= high <= 100
        assert list(face["probabilities"]) == list(GROUP_NAMES)
        assert sum(face["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        x0, y0, x1, y1 = face["box"]
        assert x0 < x1
        assert y0 < y1
        assert 0.6 <= face["score"] <= 1
    assert set(failed) == {"file", "error"}
    assert failed["file"] == str(tmp_path / "noise.png")
    assert "No face found" in failed["error"]


def test_predict_csv_says_the_same_as_json(run, tiny_weights: Path, couple: Path) -> None:
    as_json = json.loads(run("predict", couple, "--weights", tiny_weights, "--json").out)
    text = run("predict", couple, "--weights", tiny_weights, "--csv").out
    read = list(csv.DictReader(io.StringIO(text)))
    assert tuple(read[0]) == CSV_COLUMNS
    assert len(read) == len(as_json) == 2
    for row, face in zip(read, as_json, strict=True):
        assert float(row["age"]) == face["age"]
        assert [float(row[k]) for k in ("x0", "y0", "x1", "y1")] == face["box"]
        assert float(row["group_probability"]) == face["probabilities"][face["group"]]


@pytest.mark.parametrize(
    ("face", "numbers"), [("all", [1, 2]), ("largest", [1]), ("2", [2]), ("1,2", [1, 2])]
)
def test_predict_some_faces(run, tiny_weights, couple, face: str, numbers: list[int]) -> None:
    answer = run("predict", couple, "--weights", tiny_weights, "--json", "--face", face)
    assert [row["face"] for row in json.loads(answer.out)] == numbers


def test_predict_takes_folders_and_globs_each_photo_once(
    run, tiny_weights: Path, portrait_png: Path
) -> None:
    folder = portrait_png.parent
    shutil.copy(portrait_png, folder / "you.png")
    (folder / "notes.txt").write_text("not a photo")
    answer = run(
        "predict", folder, folder / "*.png", portrait_png, "--weights", tiny_weights, "--json"
    )
    assert answer.code == 0
    files = [Path(row["file"]).name for row in json.loads(answer.out)]
    assert files == ["me.png", "you.png"]


def test_predict_draws(run, tiny_weights: Path, portrait_png: Path, portrait: np.ndarray) -> None:
    out = portrait_png.parent / "drawn"
    answer = run("predict", portrait_png, "--weights", tiny_weights, "--draw", out)
    assert answer.code == 0
    assert [p.name for p in out.iterdir()] == ["me.faces.png"]
    drawn = np.asarray(Image.open(out / "me.faces.png"))
    changed = (drawn != portrait).any(-1)
    assert 0.001 < changed.mean() < 0.2
    again = run("predict", portrait_png, "--weights", tiny_weights, "--draw", out)
    assert again.code == 1
    assert "--force" in again.err
    for option in ("--force", "--skip-existing"):
        again = run("predict", portrait_png, "--weights", tiny_weights, "--draw", out, option)
        assert again.code == 0
        assert "me.png" in again.out


def test_the_minimum_score_counts(run, tiny_weights: Path, astronaut: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--min-score", 0.999)
    assert answer.code == 1
    assert "< 1.00). Try --min-score 0.9." in answer.err


def test_a_face_too_many(run, astronaut: Path, tiny_weights: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--face", 7)
    assert answer.code == 1
    assert "no face 7" in answer.err
    assert "only 1 face" in answer.err


def test_small_faces_are_noted(run, tiny_weights: Path, portrait, tmp_path: Path) -> None:
    photo = Image.new("RGB", (500, 500), "grey")
    photo.paste(Image.fromarray(portrait).resize((70, 70)), (20, 20))
    photo.save(path := tmp_path / "small.png")
    answer = run("predict", path, "--weights", tiny_weights)
    assert answer.errors == [f"note: {path}: face 1 is under 40 px; the result is unreliable."]
    photo.paste(Image.fromarray(portrait).resize((350, 350)), (120, 120))
    photo.save(path)
    answer = run("age", path, "--weights", tiny_weights, "--to", 5)
    assert answer.errors == [f"note: {path}: face 2 is under 40 px; the result is unreliable."]
