"""The command line with good input; what it does with bad input is in test_bad_input.py."""

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceage.ages import GROUP_NAMES
from faceage.cli.batch import Batch, check_distinct, result_path, without_results
from faceage.errors import ConfigError
from faceage.faces.alignment import photo_mask
from faceage.faces.detection import make_detector
from faceage.imaging.drawing import CSV_COLUMNS


@pytest.fixture
def portrait_png(tmp_path: Path, portrait: np.ndarray) -> Path:
    path = tmp_path / "me.png"
    Image.fromarray(portrait).save(path)
    return path


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# --- predict ---------------------------------------------------------------------------------


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


@pytest.mark.parametrize(("face", "numbers"), [("all", [1, 2]), ("largest", [1]), ("2", [2])])
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
    assert (
        run("predict", portrait_png, "--weights", tiny_weights, "--draw", out, "--force").code == 0
    )


def test_the_minimum_score_counts(run, tiny_weights: Path, astronaut: Path) -> None:
    answer = run("predict", astronaut, "--weights", tiny_weights, "--min-score", 0.999)
    assert answer.code == 1
    assert "< 1.00). Try --min-score 0.9." in answer.err


# --- age -------------------------------------------------------------------------------------


def test_age_writes_beside_the_photo(run, tiny_weights: Path, portrait_png: Path) -> None:
    answer = run("age", portrait_png, "--weights", tiny_weights, "--to", 5, "--to", "12.5,70")
    assert answer.code == 0
    assert answer.err == ""
    expected = [portrait_png.parent / f"me.age{age}.png" for age in ("05", "12.5", "70")]
    assert answer.lines == [str(path) for path in expected]
    assert sorted(portrait_png.parent.iterdir()) == sorted([*expected, portrait_png])
    assert {size_of(path) for path in expected} == {size_of(portrait_png)}


def test_age_leaves_everything_outside_the_mask(
    run, tiny_weights: Path, portrait_png: Path, portrait: np.ndarray
) -> None:
    run("age", portrait_png, "--weights", tiny_weights, "--to", "20-40:10")
    face = make_detector().detect(portrait)[0]
    outside = photo_mask(face, portrait.shape) == 0
    assert outside.mean() > 0.7
    for age in (20, 30, 40):
        result = np.asarray(Image.open(portrait_png.with_name(f"me.age{age}.png")))
        np.testing.assert_array_equal(result[outside], portrait[outside])
        assert (result[~outside] != portrait[~outside]).any()


def test_age_says_that_it_is_synthetic(run, tiny_weights: Path, portrait_png: Path) -> None:
    out = portrait_png.parent / "out"
    run("age", portrait_png, "--weights", tiny_weights, "--to", 70, "--out", out, "--sheet")
    run("age", portrait_png, "--weights", tiny_weights, "--to", 71, "--out", out, "--crop")
    sha = hashlib.sha256(tiny_weights.read_bytes()).hexdigest()[:16]
    for name in ("me.age70.png", "me.sheet.jpg", "me.age71.png"):
        with Image.open(out / name) as image:
            said = image.getexif()[0x010E]
            assert "ynthetic" in said
            assert sha in said
            assert "faceage" in image.getexif()[0x0131]


def test_age_jpeg_keeps_tables_and_sampling(run, tiny_weights: Path, tmp_path: Path, portrait):
    path = tmp_path / "me.JPG"
    Image.fromarray(portrait).save(path, "JPEG", quality=71, subsampling=1)
    assert run("age", path, "--weights", tiny_weights, "--to", 5).code == 0
    with Image.open(path) as before, Image.open(tmp_path / "me.age05.JPG") as after:
        assert after.format == "JPEG"
        assert after.quantization == before.quantization
        assert [c[1:3] for c in after.layer] == [c[1:3] for c in before.layer]


def test_age_crops_at_the_models_size(run, tiny_weights: Path, couple: Path, tmp_path) -> None:
    answer = run(
        "age", couple, "--weights", tiny_weights, "--to", "5,70", "--crop", "--out", tmp_path
    )
    assert answer.code == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "couple.age05.png",
        "couple.age70.png",
        "couple.face2.age05.png",
        "couple.face2.age70.png",
    ]
    assert {size_of(tmp_path / name) for name in names} == {(32, 32)}
    second = (tmp_path / "couple.face2.age05.png").read_bytes()
    alone = tmp_path / "alone"
    run(
        *("age", couple, "--weights", tiny_weights, "--to", 5),
        *("--crop", "--face", 2, "--out", alone),
    )
    assert [path.name for path in alone.iterdir()] == ["couple.face2.age05.png"]
    difference = np.asarray(Image.open(io.BytesIO(second))).astype(int) - np.asarray(
        Image.open(alone / "couple.face2.age05.png")
    )
    assert np.abs(difference).max() <= 1


def test_age_sheet(run, tiny_weights: Path, couple: Path, portrait_png: Path, tmp_path) -> None:
    out = tmp_path / "out"
    arguments = ("--weights", tiny_weights, "--to", "5,70", "--sheet", "--out", out)
    answer = run("age", portrait_png, couple, *arguments)
    assert answer.code == 0
    assert str(out / "me.sheet.jpg") in answer.lines
    width, height = size_of(out / "me.sheet.jpg")
    assert width > 3 * 256
    assert 256 < height < 2 * 256
    assert size_of(out / "couple.sheet.jpg")[1] > 2 * 256  # a row for each face


def test_age_of_one_face_leaves_the_other(run, tiny_weights, couple: Path, tmp_path) -> None:
    run("age", couple, "--weights", tiny_weights, "--to", 5, "--face", "largest", "--out", tmp_path)
    before, after = (np.asarray(Image.open(p)) for p in (couple, tmp_path / "couple.age05.png"))
    other = make_detector().detect(before)[1]
    mask = photo_mask(other, before.shape)
    assert (before != after).any()
    np.testing.assert_array_equal(before[mask > 0], after[mask > 0])


def test_age_of_a_folder_twice_leaves_its_own_results_alone(
    run, tiny_weights: Path, portrait_png: Path
) -> None:
    folder = portrait_png.parent
    arguments = ("age", folder, "--weights", tiny_weights, "--sheet")
    assert run(*arguments, "--to", 5).code == 0
    second = run(*arguments, "--to", 70, "--force")
    assert second.code == 0
    assert [Path(line).name for line in second.lines] == ["me.age70.png", "me.sheet.jpg"]


def test_results_named_one_by_one_are_photos() -> None:
    names = ["me.jpg", "me.age05.jpg", "me.sheet.jpg", "me.face2.age05.png", "you.age05.jpg"]
    paths = [Path(name) for name in names]
    assert without_results(paths, ["."]) == [Path("me.jpg"), Path("you.age05.jpg")]
    assert without_results(paths, ["me.age05.jpg"]) == [Path(n) for n in (*names[:2], names[4])]


def test_result_paths() -> None:
    assert result_path(Path("a/me.x.JPG"), "age05", None) == Path("a/me.x.age05.JPG")
    assert result_path(Path("a/me.jpg"), "age05", Path("b")) == Path("b/me.age05.jpg")
    assert result_path(Path("a/me.gif"), "age05", None) == Path("a/me.age05.png")


def test_distinct_results() -> None:
    one, two, same = Path("a/x.jpg"), Path("b/x.jpg"), Path("o/x.age05.jpg")
    check_distinct({one: [same], two: [Path("o/y.jpg")]})
    with pytest.raises(ConfigError, match=r"a/x\.jpg and b/x\.jpg would both write"):
        check_distinct({one: [same], two: [same]})
    with pytest.raises(ConfigError, match="Two of the ages"):
        check_distinct({one: [same, same]})
    with pytest.raises(ConfigError, match="overwrite the photo"):
        check_distinct({one: [same], same: [Path("o/z.jpg")]})


def test_a_batch_of_one_photo_prints_no_summary(capsys: pytest.CaptureFixture) -> None:
    batch = Batch(errors={"a.jpg": "No such photo: a.jpg."}, total=1)
    assert batch.report() == 1
    assert capsys.readouterr().err == "error: No such photo: a.jpg.\n"


# --- align -----------------------------------------------------------------------------------


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


def test_valid_box() -> None:
    from faceage.cli.jobs import valid_box

    same = np.array([[1.0, 0, 0], [0, 1, 0]])
    moved = np.array([[1.0, 0, 20], [0, 1, 0]])
    assert valid_box(same, (100, 100), 100) == (0, 0, 100, 100)
    # A crop that begins 20 px left of the photo and ends 30 px below it.
    assert valid_box(moved, (70, 100), 100) == (20, 0, 100, 70)
    half = np.array([[0.5, 0, 0], [0, 0.5, 0]])
    assert valid_box(half, (100, 200), 100) == (0, 0, 100, 50)


# --- training --------------------------------------------------------------------------------


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
