"""faceage train."""

import json
import zipfile
from pathlib import Path

import pytest
from noise_dataset import write_noise


def test_train_dry_run(run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    answer = run(
        *("train", "--data", write_noise(tmp_path / "data"), "--out", tmp_path / "r", "--dry-run"),
        *("--recipe", "compact", "--set", "model.size=32", "--set", "model.classifier_size=32"),
        *("--set", "model.width=16", "--set", "losses.r1=2", "--images", 1000),
    )
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert report["options"]["model"]["width"] == 16
    assert report["options"]["losses"]["r1"] == 2
    assert report["options"]["images"] == 1000
    assert report["cost"]["gmac_encode"] > 0
    assert report["memory"]["total_gb"] > 0
    assert report["time"]["hours"] > 0
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
        (["--recipe", "paired"], "needs a dataset of pairs"),
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
