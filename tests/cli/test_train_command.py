"""faceage train."""

import json
import zipfile
from pathlib import Path

import pytest


def test_train_dry_run(run, tmp_path: Path) -> None:
    answer = run(
        *("train", "--data", "some", "--recipe", "compact", "--dry-run", "--out", tmp_path / "r"),
        *("--set", "model.width=48", "--set", "losses.r1=2", "--images", 1000),
        *("--vgg", "vgg19.pth"),
    )
    assert answer.code == 0, answer.err
    resolved = json.loads(answer.out)
    assert resolved["model"]["width"] == 48
    assert resolved["losses"]["r1"] == 2
    assert resolved["images"] == 1000
    assert resolved["cost"]["gmac_encode"] > 0
    assert not (tmp_path / "r").exists()


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
