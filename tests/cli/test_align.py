"""faceage align."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def test_align_writes_crops_and_a_csv(run, couple: Path, tmp_path: Path) -> None:
    answer = run("align", couple, "--out", tmp_path, "--size", 128)
    assert answer.code == 0
    assert answer.lines == [str(tmp_path / "faces.csv")]
    rows = list(csv.DictReader((tmp_path / "faces.csv").open()))
    assert [row["file"] for row in rows] == ["couple.png", "couple.face2.png"]
    for row in rows:
        assert size_of(tmp_path / row["file"]) == (128, 128)
        points = np.array(row["landmarks"].split(), float).reshape(5, 2)
        # FFHQ: eyes a little above the middle, mouth below, all near the vertical axis.
        assert points[:2, 1].mean() == pytest.approx(0.48 * 128, abs=0.05 * 128)
        assert points[3:, 1].mean() > 0.6 * 128
        assert points[:, 0].mean() == pytest.approx(64, abs=8)
        assert len(row["valid"].split()) == 4
    again = run("align", couple, "--out", tmp_path)
    assert again.code == 1
    assert "--force" in again.err


def test_a_batch_is_completed(run, couple: Path, astronaut: Path, tmp_path: Path) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    assert run("align", couple, astronaut, "--out", expected).code == 0
    assert run("align", astronaut, "--out", out).code == 0
    again = ("align", couple, astronaut, "--out", out)
    answer = run(*again)
    assert answer.code == 1
    assert "faces.csv exists already" in answer.err
    assert "--skip-existing" in answer.err
    (out / "faces.csv").write_text(
        "".join(
            f"{a},{b}\n"
            for a, b in zip(
                (out / "faces.csv").read_text().splitlines(), ("age", "33"), strict=True
            )
        )
    )  # a column that the user added
    kept = (out / "astronaut.png").stat().st_mtime_ns
    assert run(*again, "--skip-existing").code == 0
    assert (out / "astronaut.png").stat().st_mtime_ns == kept
    rows = list(csv.DictReader((out / "faces.csv").open()))
    assert [row.pop("age") for row in rows] == ["", "", "33"]
    assert rows == list(csv.DictReader((expected / "faces.csv").open()))
    # After a kill there are crops, but no csv.
    (out / "faces.csv").unlink()
    (out / "couple.face2.png").unlink()
    assert run(*again, "--skip-existing").code == 0
    assert (out / "astronaut.png").stat().st_mtime_ns == kept
    for path in expected.iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_crops_of_another_size_are_not_counted_as_done(run, astronaut: Path, tmp_path) -> None:
    assert run("align", astronaut, "--out", tmp_path, "--size", 64).code == 0
    answer = run("align", astronaut, "--out", tmp_path, "--size", 128, "--skip-existing")
    assert answer.code == 1
    assert "64x64 px, not 128x128" in answer.err


def test_a_foreign_csv_is_not_continued(run, snapshot, astronaut: Path, tmp_path: Path) -> None:
    (tmp_path / "faces.csv").write_text("name,age\nme,33\n")
    before = snapshot(tmp_path)
    answer = run("align", astronaut, "--out", tmp_path, "--skip-existing")
    assert (answer.code, len(answer.errors)) == (1, 1)
    assert "cannot be continued" in answer.err
    assert snapshot(tmp_path) == before
