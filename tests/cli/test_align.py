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
