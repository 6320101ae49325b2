"""Evaluation end to end: real files, all evaluators or none, result pictures, the command."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY
from onnx_files import write_age_evaluator, write_embedder
from PIL import Image
from stand_ins import (
    LANDMARKS,
    AngleEvaluator,
    BrightnessEvaluator,
    LevelEvaluator,
    MeanEvaluator,
    make_dataset,
    open_inputs,
)

from faceage.checkpoints import save_weights
from faceage.errors import AgeError, ConfigError, DataError, OutputError
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.methods import FaceBatch, open_weights
from faceage.evaluation.results import MethodResult, Report
from faceage.evaluation.run import BIAS_TARGETS, SWEEP, Options, evaluate
from faceage.faces.detection import crop_face, make_detector
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel

ALL = Evaluators(BrightnessEvaluator(), AngleEvaluator(), LevelEvaluator(), MeanEvaluator())
AGE = Evaluators(BrightnessEvaluator())
RANGE_TARGETS = [7.0, 17.0, 30.0, 45.0, 65.0]


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    """The portrait's FFHQ crop, 256 px."""
    return crop_face(portrait, make_detector().detect(portrait)[0], 256)


@pytest.fixture
def data(tmp_path: Path, crop: np.ndarray) -> Path:
    """One real face in six shades, labelled anyhow."""
    shades = [(crop * factor).astype(np.uint8) for factor in (1, 0.9, 0.8, 0.7, 0.6, 0.5)]
    return make_dataset(tmp_path / "faces", shades, [20, 30, 40, 50, 10, 17], landmarks=LANDMARKS)


def run_on(
    data: Path, weights: Path | list[Path], evaluators: Evaluators | None = None, **options: Any
) -> Report:
    paths = weights if isinstance(weights, list) else [weights]
    return evaluate(Options(data, paths, device="cpu", **options), evaluators)


def by_target(method: MethodResult) -> dict[float, Any]:
    return {row.target: row for row in method.targets}


def test_report_and_sheets(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    options = dict(targets=[70, 5, 5], limit=4, people=2, out=out, command="faceage evaluate x")
    report = run_on(data, [tiny_weights, tiny_weights], ALL, **options)
    assert report.command == "faceage evaluate x"
    assert (report.data, report.split, report.faces) == ("faces", "test", 6)
    assert report.genders == {"M": 3, "F": 3}
    assert report.groups["20-29"] == 1
    assert report.targets == (5, 70)
    assert list(report.ranges.values()) == RANGE_TARGETS
    assert report.evaluators["identity"] == f"angle, sha256 {'cd' * 32}"
    assert report.real_groups[-1].mae.count == 6
    assert report.remarks == ()
    assert [method.info.name for method in report.methods] == ["tiny", "tiny-2"]
    first, second = report.methods
    alike = dataclasses.replace(second, info=first.info, sheets=first.sheets)
    assert first == alike  # the same file, the same results
    assert first.info.metadata["images_seen"] == "0"
    assert first.info.size == TINY.size
    assert first.scores.accuracy.count == 6
    assert [row.name for row in first.intervals] == ["50 %", "80 %", "90 %"]
    assert [row.name for row in first.robustness][:2] == ["none", "48 px"]
    assert all(row.accuracy.count == 4 for row in first.robustness)
    for name in ("reconstruction_l1", "reconstruction_lpips", "cycle_l1", "cycle_lpips"):
        assert getattr(first.scores, name).value > 0
        assert getattr(first.scores, name).count == 4
    assert [row.name for row in first.ranges] == [*report.ranges, "mean"]
    wanted = {5, 70, *RANGE_TARGETS, *BIAS_TARGETS, 10, 30, 50}
    assert [row.target for row in first.targets] == sorted(wanted)
    assert all(row.top1.count > 0 and row.sharpness_ratio.count == 4 for row in first.targets)
    assert by_target(first)[3].bias is None  # no real face is of 3 years
    assert by_target(first)[10].bias.count == 1
    assert set(first.genders) == {"M", "F"}

    assert Report.read(out / "report.json") == report
    assert (out / "report.md").read_text().startswith("#")
    page = (out / "report.html").read_text()
    for method in report.methods:
        assert "random" in method.sheets
    files = [name for method in report.methods for name in method.sheets.values()]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["report.json", "report.md", "report.html", *files]
    )
    assert page.count("data:image/jpeg") == len(files)
    with Image.open(out / "sheet-tiny-random.jpg") as sheet:
        assert sheet.width > 8 * 192
        assert 2 * 192 < sheet.height < 3 * 192
        exif = str(dict(sheet.getexif()))
        assert "synthetic" in exif.lower()
        assert f"weights={first.info.sha256[:16]}" in exif


def test_the_split(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_dataset(tmp_path / "faces", [20, 40, 60], [20, 40, 60])
    table = (data / "faces.csv").read_text().splitlines()
    table[1] = table[1].replace("test", "val")
    (data / "faces.csv").write_text("\n".join(table))
    for split, faces in (("val", 1), ("test", 2)):
        report = run_on(data, tiny_weights, None, split=split, targets=[5])
        assert (report.split, report.faces) == (split, faces)


def test_equal_seeds_give_equal_reports(data: Path, tiny_weights: Path) -> None:
    def once(seed: int) -> Report:
        return run_on(data, tiny_weights, ALL, targets=[5], limit=3, seed=seed)

    assert once(0) == once(0)
    cycles = {once(seed).methods[0].scores.cycle_l1.value for seed in range(3)}
    assert len(cycles) > 1


def test_without_evaluators(data: Path, tiny_weights: Path) -> None:
    report = run_on(data, tiny_weights, None, targets=[5], limit=1)
    (method,) = report.methods
    assert report.real_groups == report.real_ranges == ()
    assert report.evaluators == {}
    scores = method.scores
    for name in ("in_range", "control_mae", "rising", "top1", "reconstruction_lpips"):
        assert getattr(scores, name) is None
    assert scores.reconstruction_l1.value > 0
    (row,) = method.targets
    assert row.sharpness_ratio.value > 0
    assert row.predicted_age is row.bias is row.top1 is None
    for row in method.ranges:
        assert all(value is None for name, value in vars(row).items() if name != "name")
    remarks = " ".join(report.remarks)
    for option in ("--age-evaluator", "--identity-evaluator", "--perceptual-evaluator"):
        assert option in remarks


def test_a_baseline(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(**{**vars(TINY), "decomposition": False})
    path = save_weights(tmp_path / "ragan.safetensors", FaceAgeModel(config), {})
    report = run_on(data, path, AGE, targets=[5], limit=1)
    (method,) = report.methods
    assert method.groups == method.confusion == method.robustness == ()
    assert method.scores.accuracy is None
    assert method.scores.reconstruction_l1.value == 0  # untrained: no change
    assert all(scores.accuracy is None for scores in method.genders.values())
    assert any("ragan is a RAGAN baseline" in remark for remark in report.remarks)


def test_groups_without_years(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_dataset(tmp_path / "faces", [20, 40], ["20-29", 40])
    report = run_on(data, tiny_weights, None, targets=[5], limit=1)
    assert report.methods[0].scores.mae.count == 1
    assert any("1 of 2 faces are labelled with a group only" in r for r in report.remarks)


# -- result pictures ----------------------------------------------------------------------------


def shade(crop: np.ndarray, level: float) -> np.ndarray:
    """The face with a mean level of about this."""
    return np.clip(crop * (level / crop.mean()), 0, 255).astype(np.uint8)


def test_pictures_of_another_method(
    data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    """All results have the predicted age 31 (the mean level), for two of six faces."""
    pytest.importorskip("matplotlib")
    folder = tmp_path / "other"
    folder.mkdir()
    for face, own in ((0, 20), (2, 40)):
        for age in (30, 50, own):
            Image.fromarray(shade(crop, 31)).save(folder / f"{face}_{age}.png")
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(folder / "2_70.png")
    Image.fromarray(crop).save(folder / "0_60.png")
    Image.fromarray(crop).save(folder / "9_70.png")
    out = tmp_path / "out"
    options = dict(targets=[30, 50, 70, 80], people=2, out=out, folders={"other": folder})
    report = run_on(data, tiny_weights, ALL, **options)
    ours, other = report.methods
    assert ours.scores.reconstruction_l1.count == 2  # the same faces for both
    assert (other.info.kind, other.info.name, other.info.sha256) == ("pictures", "other", None)
    assert other.scores.accuracy is None
    assert other.scores.cycle_l1 is None
    predicted = shade(crop, 31).mean()
    rows = by_target(other)
    # Half of the inputs are enough: that makes 20, 40 and 60 targets that nothing asks for.
    assert list(rows) == [30, 50, 70]
    assert rows[30].predicted_age.value == pytest.approx(predicted, abs=1e-3)
    assert rows[50].mae.value == pytest.approx(50 - predicted, abs=1e-3)
    assert rows[70].predicted_age is None  # a black picture is no face
    ranges = {row.name: row for row in other.ranges}
    assert ranges["20-39"].in_range.value == 1
    assert ranges["50+"].in_range is None
    assert rows[30].top1.count == 2
    faces = [(crop * factor).astype(int) for factor in (1, 0.8)]
    l1 = [np.abs(shade(crop, 31).astype(int) - face).mean() / 127.5 for face in faces]
    assert other.scores.reconstruction_l1.value == pytest.approx(np.mean(l1), abs=1e-4)
    remarks = " ".join(report.remarks)
    assert "drawn from the 2 with results" in remarks
    assert "In 1 results of other no face was found" in remarks
    assert "1 results of other belong to no input" in remarks
    assert "other lacks 1 of its results" in remarks
    assert "Results of other at 20, 40, 60 years are left out" in remarks
    assert "random" in other.sheets
    with Image.open(out / "sheet-other-random.jpg") as sheet:
        assert "method=other" in str(dict(sheet.getexif()))


def test_pictures_have_the_results_of_the_weights_that_made_them(
    data: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Writing files and reading them again changes nothing."""
    inputs, (method,) = open_inputs(data), open_weights([tiny_weights], torch.device("cpu"))
    everyone, folder = np.arange(len(inputs)), tmp_path / "made"
    folder.mkdir()
    faces = FaceBatch(everyone, inputs.crops(everyone), inputs.ages)
    targets = [*(np.full(len(inputs), age) for age in (5.0, 30.0)), inputs.ages]
    for aged, ages in zip(method.age(faces, targets), targets, strict=True):
        for i, image in enumerate(aged.images):
            Image.fromarray(image).save(folder / f"{i}_{ages[i]:g}.png")
    report = run_on(data, tiny_weights, ALL, targets=[5, 30], folders={"made": folder})
    ours, made = report.methods
    for name in ("control_mae", "reconstruction_l1", "reconstruction_lpips"):
        assert getattr(made.scores, name) == getattr(ours.scores, name), name
    assert [row.target for row in made.targets] == [5, 30]
    assert all(by_target(ours)[row.target] == row for row in made.targets)
    assert made.ranges[2] == ours.ranges[2]


def test_what_cannot_be_evaluated(
    data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    folders = {}
    for name, face in (("a", 0), ("b", 1)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        Image.fromarray(crop).save(folders[name] / f"{face}_30.png")
    with pytest.raises(DataError, match="a and b have no input in common"):
        run_on(data, [], None, folders=folders)
    with pytest.raises(ConfigError, match="Two methods are named tiny"):
        run_on(data, tiny_weights, None, folders={"tiny": folders["a"]})
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        run_on(data, [])


# -- files and arguments ------------------------------------------------------------------------


def test_results_are_not_overwritten(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("sheet-tiny-worst.jpg", "report.html"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        with pytest.raises(OutputError, match=f"{name} exists already"):
            run_on(data, tiny_weights, AGE, targets=[5], limit=1, people=1, out=out)
        assert [path.name for path in out.iterdir()] == [name]
    report = run_on(data, tiny_weights, AGE, targets=[5], limit=1, people=0, out=out, force=True)
    assert report.methods[0].sheets == {}
    assert (out / "report.html").read_text() != "mine"


@pytest.mark.parametrize("missing", ["jinja2", "matplotlib"])
def test_without_the_extra_nothing_is_written(
    missing: str, data: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=rf"needs {missing}.*pip install 'faceage\[evaluate\]'"):
        run_on(data, tiny_weights, None, targets=[5], limit=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run_on(data, tiny_weights, None, targets=[5], limit=1).faces == 6  # needs neither


def test_bad_arguments(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeError, match="500"):
        run_on(data, tiny_weights, None, targets=[500])
    with pytest.raises(ConfigError, match="no target age"):
        run_on(data, tiny_weights, None, targets=[])
    with pytest.raises(DataError, match="No dataset folder"):
        run_on(tmp_path / "none", tiny_weights)


def test_the_sweep() -> None:
    assert SWEEP == (2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85)


def test_command_prints_json(run, data: Path, tiny_weights: Path) -> None:
    answer = run(
        *("evaluate", "--data", data, "--weights", tiny_weights, "--to", "5,70"),
        *("--limit", 2, "--json", "--device", "cpu"),
    )
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert [row["target"] for row in report["methods"][0]["targets"]] == [5, 70]
    assert all(line.startswith("remark: ") for line in answer.errors)
    assert "--age-evaluator" in answer.errors[0]


def test_command_prints_tables(
    run, data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "other"
    folder.mkdir()
    Image.fromarray(crop).save(folder / "0_25.png")
    age_evaluator = write_age_evaluator(tmp_path / "ages.onnx")
    answer = run(
        *("evaluate", "--data", data, "--weights", tiny_weights, "--images", f"other={folder}"),
        *("--to", 25, "--age-evaluator", age_evaluator, "--device", "cpu", "--split", "test"),
        *("--identity-evaluator", write_embedder(tmp_path / "embedder.onnx")),
    )
    assert answer.code == 0, answer.err
    for text in ("Main results", "Age ranges", "tiny", "other", "top-1", "robustness"):
        assert text.lower() in answer.out.lower()
    assert "--perceptual-evaluator" in answer.errors[0]


def test_pictures_alone_need_no_weights(run, data: Path, tmp_path: Path, crop: np.ndarray) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    Image.fromarray(crop).save(folder / "0_25.png")
    answer = run("evaluate", "--data", data, "--images", f"o={folder}", "--to", 25, "--json")
    assert answer.code == 0, answer.err
    assert [method["info"]["name"] for method in json.loads(answer.out)["methods"]] == ["o"]


def test_command_refuses(run, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    basis = ["evaluate", "--data", data, "--weights", tiny_weights]
    for more, code, said in [
        (["--age-evaluator", tmp_path / "none.onnx"], 1, "none.onnx"),
        (["--identity-evaluator", tmp_path / "none.onnx"], 1, "none.onnx"),
        (["--perceptual-evaluator", tmp_path / "none.pth"], 1, "none.pth"),
        (["--inception", tmp_path / "none.pth"], 1, "none.pth"),
        (["--images", "nothing"], 2, "NAME=DIR"),
        (["--images", "a=x", "--images", "a=y"], 2, "a twice"),
        (["--images", f"a={tmp_path / 'none'}"], 1, "none"),
        (["--images", f"a b={tmp_path}"], 2, "a b"),
        (["--to", "abc"], 2, "abc"),
        (["--device", "abacus"], 2, "abacus"),
    ]:
        answer = run(*basis, *more)
        assert (answer.code, len(answer.errors)) == (code, 1), answer.err
        assert said in answer.err
        assert answer.out == ""
