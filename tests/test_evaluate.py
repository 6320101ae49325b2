"""Evaluation: figures worked out by hand on a stand-in model, then real files and the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from onnx_files import write_judge
from PIL import Image

from faceage.ager import FaceAger
from faceage.ages import GROUP_NAMES
from faceage.checkpoints import save_weights
from faceage.data import open_dataset
from faceage.errors import AgeError, DataError, OutputError
from faceage.evaluate import SHEET_AGES, Options, evaluate, tables
from faceage.measure import Measurer, Subject, inner_sharpness, picture_mask, spread, to_pixels
from faceage.model import Change, Decomposed, FaceAgeModel, ModelConfig
from faceage.views import read_years

CPU = torch.device("cpu")


class Stub:
    """Says that a face is as many years old as its mean level; ages it by adding target / 100."""

    config = TINY

    def age_logits(self, faces, zoom=1.0):
        levels = ((faces.mean((1, 2, 3)) + 1) * 127.5).round().long()
        return 60.0 * torch.nn.functional.one_hot(levels, 101)

    def encode(self, faces):
        assert faces.shape[1:] == (3, TINY.size, TINY.size)
        return Decomposed(faces, faces, faces)

    def decode(self, encoded, target_age, source_age=None):
        assert source_age is None
        faces = encoded.identity
        residual = (target_age / 100)[:, None, None, None] * torch.ones_like(faces)
        return Change(residual, torch.zeros(len(faces), 2, 4, 4))


class BrightnessJudge:
    """A face is as many years old as its mean level."""

    name, sha256 = "brightness", "ab" * 32

    def ages(self, crops):
        assert crops.shape[1:] == (256, 256, 3)
        return crops.mean((1, 2, 3))


def make_dataset(folder: Path, levels: list, ages: list, valid: str = "0 0 256 256") -> Path:
    """Pictures of one grey level each (or uint8 arrays), 256 px."""
    folder.mkdir(exist_ok=True)
    with (folder / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "set", "age", "age_group", "valid"])
        for i, (level, age) in enumerate(zip(levels, ages, strict=True)):
            solid = np.full((256, 256, 3), level, np.uint8) if isinstance(level, int) else level
            Image.fromarray(solid).save(folder / f"{i}.png")
            known = ["", age] if isinstance(age, str) else [age, ""]
            writer.writerow([f"{i}.png", "val", *known, valid])
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Four faces; the stand-in model is right about two."""
    return make_dataset(tmp_path / "data", levels=[5, 25, 52, 69], ages=[5, 25, 45, 70])


@pytest.fixture
def stub() -> Subject:
    return Subject("stub", Path("stub"), "", Stub(), {})


def measurer(folder: Path, judge=None) -> Measurer:
    return Measurer(open_dataset(folder, "val"), judge, CPU)


def test_classification(dataset: Path, stub: Subject) -> None:
    found = measurer(dataset).classify(stub)
    assert found["accuracy"]["value"] == 0.5  # 52 for 45 and 69 for 70 are in other groups
    assert found["within_one_group"]["value"] == 1
    assert found["mae"]["value"] == pytest.approx((7 + 1) / 4)
    assert found["coverage_80"]["value"] == 0.5  # year k reaches from k - .5 to k + .5
    assert found["interval_width"]["value"] == pytest.approx(0.8)
    recall = {name: figure and figure["value"] for name, figure in found["recall"].items()}
    expected = dict.fromkeys(GROUP_NAMES) | {"3-6": 1, "20-29": 1, "40-49": 0, "70+": 0}
    assert recall == expected
    confusion = np.array(found["confusion"])
    assert [tuple(place) for place in np.argwhere(confusion)] == [(1, 1), (5, 5), (7, 8), (9, 8)]
    for name in ("accuracy", "mae"):
        figure = found[name]
        assert figure["count"] == 4
        assert figure["low"] <= figure["value"] <= figure["high"]


def test_groups_alone_have_no_errors_in_years(tmp_path: Path, stub: Subject) -> None:
    folder = make_dataset(tmp_path / "data", [25, 40], ["20-29", "20-29"])
    found = measurer(folder).classify(stub)
    assert found["accuracy"]["value"] == 0.5
    assert found["mae"] is None
    assert found["coverage_80"] is None


def test_reconstruction_is_the_change_at_the_own_age(dataset: Path, stub: Subject) -> None:
    found = measurer(dataset).reconstruct(stub)["l1"]
    assert found["value"] == pytest.approx((0.05 + 0.25 + 0.45 + 0.70) / 4, abs=1e-5)


def test_reconstruction_leaves_padding_out(tmp_path: Path, stub: Subject) -> None:
    half = np.zeros((256, 256, 3), np.uint8)
    half[:, 128:] = 255  # white stays white when something is added
    folder = make_dataset(tmp_path / "data", [half], [50], valid="128 0 256 256")
    assert measurer(folder).reconstruct(stub)["l1"]["value"] == pytest.approx(0, abs=1e-5)
    folder = make_dataset(tmp_path / "data", [half], [50])
    assert measurer(folder).reconstruct(stub)["l1"]["value"] == pytest.approx(0.25, abs=1e-5)


def test_ageing(dataset: Path, stub: Subject) -> None:
    low, high = measurer(dataset, BrightnessJudge()).age(stub, [0, 40], limit=100)
    mean = (5 + 25 + 52 + 69) / 4
    assert low["target"] == 0
    assert low["judged_age"]["value"] == pytest.approx(mean)
    assert low["judged_error"]["value"] == pytest.approx(mean)
    assert high["judged_age"]["value"] == pytest.approx(mean + 51)  # 0.4 of 127.5 levels
    assert high["judged_error"]["value"] == pytest.approx(mean + 51 - 40)
    assert high["judged_age"]["count"] == 4


def test_sharpness_kept(tmp_path: Path, stub: Subject) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (256, 256, 3)).astype(np.uint8)
    folder = make_dataset(tmp_path / "data", [noise], [30])
    light, white = measurer(folder).age(stub, [40, 100], limit=1)
    before = inner_sharpness(noise[None])[0]
    after = inner_sharpness(np.clip(noise[None] + 127.5, 0, 255))[0]  # a good third is white
    assert light["sharpness_in"]["value"] == pytest.approx(before, abs=1e-4)
    assert light["sharpness_kept"]["value"] == pytest.approx(1, abs=1e-3)
    assert white["sharpness_out"]["value"] == pytest.approx(after, rel=0.01)
    assert white["sharpness_kept"]["value"] == pytest.approx(after / before, rel=0.01)
    assert after < 0.6 * before
    assert light["judged_age"] is None


def test_flat_pictures_have_no_sharpness_to_keep(dataset: Path, stub: Subject) -> None:
    (row,) = measurer(dataset).age(stub, [40], limit=4)
    assert row["sharpness_in"]["value"] == 0
    assert row["sharpness_kept"] is None


def test_limit_draws_by_seed(tmp_path: Path, stub: Subject) -> None:
    folder = make_dataset(tmp_path / "data", list(range(10, 90, 4)), [30] * 20)

    def judged(seed: int) -> float:
        measures = Measurer(open_dataset(folder, "val"), BrightnessJudge(), CPU, seed)
        (row,) = measures.age(stub, [0], limit=3)
        assert row["judged_age"]["count"] == 3
        return row["judged_age"]["value"]

    assert judged(0) == judged(0)
    assert len({judged(seed) for seed in range(5)}) > 1


def test_the_judge_on_unchanged_faces(dataset: Path) -> None:
    judge = BrightnessJudge()
    found = measurer(dataset, judge).judge_unchanged(judge)
    whole = found["groups"]["all"]
    assert whole["mae"]["value"] == pytest.approx(2)
    assert whole["bias"]["value"] == pytest.approx(6 / 4)
    assert found["groups"]["40-49"]["judged"]["value"] == 52
    assert found["groups"]["40-49"]["label"]["value"] == 45
    assert found["groups"]["0-2"]["mae"] is None
    expected = np.corrcoef([5, 25, 52, 69], [5, 25, 45, 70])[0, 1]
    assert found["correlation"] == pytest.approx(expected, abs=1e-5)


def test_picture_mask() -> None:
    mask = picture_mask(torch.tensor([[0.0, 0, 1, 1], [0.5, 0.25, 1, 1]]), 4)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0].all()
    assert mask[1, 0].int().tolist() == [[0, 0, 0, 0], *[[0, 0, 1, 1]] * 3]


def test_to_pixels() -> None:
    faces = torch.tensor([-2.0, -1, 0, 1, 2])[None, None, None].expand(1, 3, 1, 5)
    assert to_pixels(faces)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_people_of_the_sheet_are_of_all_ages() -> None:
    ages = np.concatenate([np.full(500, 25.0), np.arange(0.0, 90)])
    people = spread(ages, 6, seed=0)
    assert len(set(people.tolist())) == 6
    found = ages[people]
    assert (np.diff(found) > 0).all()
    assert found[0] < 12
    assert found[-1] > 70
    assert spread(ages, 6, seed=0).tolist() == people.tolist()
    assert spread(ages, 6, seed=1).tolist() != people.tolist()
    assert len(spread(ages[:3], 6, seed=0)) == 3
    alike = {int(spread(np.full(500, 25.0), 1, seed)[0]) for seed in range(8)}
    assert len(alike) > 4  # not always the first ones of the file


# -- files --------------------------------------------------------------------------------------


@pytest.fixture
def portraits(tmp_path: Path, portrait: np.ndarray) -> Path:
    """Three real crops of one person, labelled anyhow."""
    faces = [
        np.asarray(Image.fromarray(portrait).crop((x, 0, x + 300, 300)).resize((256, 256)))
        for x in (60, 70, 80)
    ]
    return make_dataset(tmp_path / "portraits", faces, [20, 30, 40])


def test_report_and_sheets(portraits: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options(targets=[5, 70], limit=2, people=2, out=out)
    report = evaluate(portraits, [tiny_weights, tiny_weights], BrightnessJudge(), options, "cpu")
    assert [model["name"] for model in report["models"]] == ["tiny", "tiny-2"]
    assert report["judges"]["age"] == {"name": "brightness", "sha256": "ab" * 32}
    assert report["data"]["faces"] == 3
    assert report["remarks"] == []
    first, second = (dict(model, name="") for model in report["models"])
    assert first == second  # the same file, the same figures
    assert first["metadata"]["images_seen"] == "0"
    assert [row["target"] for row in first["ageing"]] == [5, 70]
    assert first["reconstruction"]["l1"]["value"] > 0
    assert json.loads((out / "report.json").read_text()) == report
    assert sorted(path.name for path in out.iterdir()) == [
        "report.json",
        "sheet-tiny-2.jpg",
        "sheet-tiny.jpg",
    ]
    with Image.open(out / "sheet-tiny.jpg") as sheet:
        assert sheet.width > (1 + len(SHEET_AGES)) * 192
        assert 2 * 192 < sheet.height < 3 * 192
        assert "synthetic" in str(dict(sheet.getexif())).lower()


def test_classification_is_that_of_predict(portraits: Path, tiny_model: FaceAgeModel) -> None:
    """The same pixels get the same age, whoever asks."""
    dataset = open_dataset(portraits, "val")
    side = TINY.classifier_crop
    crops = [
        np.asarray(dataset.read(s).resize((side, side), Image.Resampling.BOX))
        for s in dataset.samples
    ]
    years = [read_years(y)[0] for y in FaceAger(tiny_model, None, CPU)._years(crops)]
    found = Measurer(dataset, None, CPU).classify(Subject("tiny", Path("x"), "", tiny_model, {}))
    expected = np.abs(np.array(years) - [20, 30, 40]).mean()
    assert found["mae"]["value"] == pytest.approx(expected, abs=1e-4)


def test_without_a_judge_no_age_is_invented(portraits: Path, tiny_weights: Path) -> None:
    report = evaluate(portraits, [tiny_weights], None, Options(targets=[5], limit=1), "cpu")
    (row,) = report["models"][0]["ageing"]
    assert row["judged_age"] is None
    assert row["judged_error"] is None
    assert row["sharpness_kept"]["value"] > 0
    assert report["judged_unchanged"] is None
    assert report["judges"]["age"] is None
    assert "No age judge" in report["remarks"][0]


def test_a_baseline_is_told_the_source_age(portraits: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(**{**vars(TINY), "decomposition": False})
    path = save_weights(tmp_path / "ragan.safetensors", FaceAgeModel(config), {})
    report = evaluate(portraits, [path], None, Options(targets=[5], limit=1), "cpu")
    assert report["models"][0]["classification"] is None
    assert report["models"][0]["reconstruction"]["l1"]["value"] == 0  # untrained: no change
    assert any("ragan is a RAGAN baseline" in remark for remark in report["remarks"])
    assert tables(report)


def test_results_are_not_overwritten(portraits: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sheet-tiny.jpg").write_text("mine")
    options = Options(targets=[5], limit=1, people=1, out=out)
    with pytest.raises(OutputError, match=r"sheet-tiny\.jpg exists already"):
        evaluate(portraits, [tiny_weights], None, options, "cpu")
    assert [path.name for path in out.iterdir()] == ["sheet-tiny.jpg"]
    options = Options(targets=[5], limit=1, people=1, out=out, force=True)
    evaluate(portraits, [tiny_weights], None, options, "cpu")
    assert (out / "report.json").exists()


def test_bad_arguments(portraits: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeError, match="500"):
        evaluate(portraits, [tiny_weights], None, Options(targets=[500]), "cpu")
    with pytest.raises(DataError, match="No dataset folder"):
        evaluate(tmp_path / "none", [tiny_weights], None, None, "cpu")


def test_command_prints_json(run, portraits: Path, tiny_weights: Path) -> None:
    answer = run(
        *("evaluate", "--data", portraits, "--weights", tiny_weights, "--to", "5,70"),
        *("--limit", 2, "--json", "--device", "cpu"),
    )
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert [row["target"] for row in report["models"][0]["ageing"]] == [5, 70]
    assert answer.err.startswith("remark: No age judge")


def test_command_prints_tables(run, portraits: Path, tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    answer = run(
        *("evaluate", "--data", portraits, "--weights", tiny_weights, "--limit", 2),
        *("--to", 25, "--age-judge", write_judge(tmp_path / "judge.onnx"), "--device", "cpu"),
    )
    assert answer.code == 0, answer.err
    assert "accuracy" in answer.out
    assert "recall by group" in answer.out
    assert "judge on the unchanged faces" in answer.out
    assert answer.err == ""


def test_command_refuses(run, portraits: Path, tiny_weights: Path, tmp_path: Path) -> None:
    basis = ["evaluate", "--data", portraits, "--weights", tiny_weights]
    for more, code, said in [
        (["--age-judge", tmp_path / "none.onnx"], 1, "none.onnx"),
        (["--to", "abc"], 2, "abc"),
        (["--device", "abacus"], 2, "abacus"),
    ]:
        answer = run(*basis, *more)
        assert (answer.code, len(answer.errors)) == (code, 1), answer.err
        assert said in answer.err
        assert answer.out == ""
