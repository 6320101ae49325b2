"""Evaluation end to end: real files, all judges or none, other systems' pictures, the command."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from faceage.evaluation.systems import Crops, open_weights
from onnx_files import write_embedder, write_judge
from PIL import Image
from stand_ins import (
    LANDMARKS,
    AngleJudge,
    BrightnessJudge,
    LevelJudge,
    make_dataset,
    open_inputs,
)

from faceage.checkpoints import save_weights
from faceage.errors import AgeError, ConfigError, DataError, OutputError
from faceage.evaluation.run import TARGETS, Judges, Options, evaluate
from faceage.faces.detection import crop_face, make_detector
from faceage.models.generator import FaceAgeModel, ModelConfig

ALL = Judges(BrightnessJudge(), AngleJudge(), LevelJudge())
AGE = Judges(BrightnessJudge())
BANDS = [7.0, 17.0, 30.0, 45.0, 65.0]


@pytest.fixture(scope="module")
def crop(portrait: np.ndarray) -> np.ndarray:
    """The portrait's FFHQ crop, 256 px."""
    return crop_face(portrait, make_detector().detect(portrait)[0], 256)


@pytest.fixture
def data(tmp_path: Path, crop: np.ndarray) -> Path:
    """One real face in six shades, labelled anyhow."""
    shades = [(crop * share).astype(np.uint8) for share in (1, 0.9, 0.8, 0.7, 0.6, 0.5)]
    return make_dataset(tmp_path / "faces", shades, [20, 30, 40, 50, 10, 17], landmarks=LANDMARKS)


def leaves(value: object, path: str = "") -> dict[str, object]:
    """All numbers and texts of a report by their places."""
    if isinstance(value, dict):
        return {
            k: v for key, part in value.items() for k, v in leaves(part, f"{path}/{key}").items()
        }
    if isinstance(value, list):
        return {
            k: v for i, part in enumerate(value) for k, v in leaves(part, f"{path}/{i}").items()
        }
    return {path: value}


def test_report_and_sheets(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = Options(targets=[70, 5, 5], limit=4, people=2, out=out, command="faceage evaluate x")
    report = evaluate(data, [tiny_weights, tiny_weights], None, ALL, options, "cpu")
    assert report["schema"] == 2
    assert report["command"] == "faceage evaluate x"
    assert report["data"]["faces"] == 6
    assert report["data"]["by_gender"] == {"M": 3, "F": 3}
    assert report["options"]["targets"] == [5, 70]
    assert [band["target"] for band in report["options"]["bands"]] == BANDS
    assert report["judges"]["identity"] == {"name": "angle", "sha256": "cd" * 32}
    assert report["judged_unchanged"]["all"]["mae"]["count"] == 6
    assert report["remarks"] == []
    assert [model["name"] for model in report["models"]] == ["tiny", "tiny-2"]
    first, second = (dict(model, name="", sheets={}) for model in report["models"])
    assert first == second  # the same file, the same figures
    assert first["metadata"]["images_seen"] == "0"
    assert first["size"] == TINY.size
    assert first["classification"]["accuracy"]["count"] == 6
    assert [row["share"] for row in first["classification"]["calibration"]] == [0.5, 0.8, 0.9]
    for key in ("reconstruction", "cycle"):
        for kind in ("l1", "lpips"):
            assert first[key][kind]["value"] > 0
            assert first[key][kind]["count"] == 4
    assert [row["band"] for row in first["bands"]] == ["0-14", "15-19", "20-39", "40-49", "50+"]
    assert [row["target"] for row in first["control"]["targets"]] == [5, 70]
    assert [row["target"] for row in first["identity"]["targets"]] == [10, 30, 50, 70]
    assert [row["target"] for row in first["sharpness"]] == [5, 70]
    assert set(first["by_gender"]) == {"M", "F"}
    assert list(first["by_gender"]["M"]) == [
        *("accuracy", "mae", "reconstruction_l1", "control_error", "judged_in_band", "top1")
    ]

    assert json.loads((out / "report.json").read_text()) == report
    assert (out / "report.md").read_text().startswith("#")
    page = (out / "report.html").read_text()
    kinds = {"random", "best", "worst"} if first["control"] else {"random"}
    for model in report["models"]:
        assert set(model["sheets"]) <= kinds
        assert "random" in model["sheets"]
    files = [name for model in report["models"] for name in model["sheets"].values()]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        ["report.json", "report.md", "report.html", *files]
    )
    assert page.count("data:image/jpeg") == len(files)
    with Image.open(out / "sheet-tiny-random.jpg") as sheet:
        assert sheet.width > 8 * 192
        assert 2 * 192 < sheet.height < 3 * 192
        assert "synthetic" in str(dict(sheet.getexif())).lower()


def test_the_same_command_gives_the_same_figures(data: Path, tiny_weights: Path) -> None:
    def once(seed: int) -> dict[str, object]:
        options = Options(targets=[5], limit=3, seed=seed)
        return leaves(evaluate(data, [tiny_weights], None, ALL, options, "cpu")["models"])

    assert once(0) == once(0)
    assert len({once(seed)["/0/cycle/l1/value"] for seed in range(3)}) > 1


def test_without_judges_nothing_is_invented(data: Path, tiny_weights: Path) -> None:
    options = Options(targets=[5], limit=1)
    report = evaluate(data, [tiny_weights], None, None, options, "cpu")
    (model,) = report["models"]
    assert report["judged_unchanged"] is None
    assert set(report["judges"].values()) == {None}
    assert model["control"] is None
    assert model["identity"] is None
    assert model["kernel_mean"] is None
    assert model["reconstruction"]["lpips"] is None
    assert model["reconstruction"]["l1"]["value"] > 0
    assert model["sharpness"][0]["kept"]["value"] > 0
    for row in model["bands"]:
        assert set(row) == {
            *("band", "target", "judged_in_band", "judged_age", "kernel", "frechet"),
        }
        assert row["judged_in_band"] is row["judged_age"] is row["kernel"] is row["frechet"] is None
    told = " ".join(report["remarks"])
    for option in ("--age-judge", "--identity-judge", "--perceptual-judge"):
        assert option in told


def test_a_baseline(data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ModelConfig(**{**vars(TINY), "decomposition": False})
    path = save_weights(tmp_path / "ragan.safetensors", FaceAgeModel(config), {})
    report = evaluate(data, [path], None, AGE, Options(targets=[5], limit=1), "cpu")
    (model,) = report["models"]
    assert model["classification"] is None
    assert model["reconstruction"]["l1"]["value"] == 0  # untrained: no change
    assert all(row["accuracy"] is None for row in model["by_gender"].values())
    assert any("ragan is a RAGAN baseline" in remark for remark in report["remarks"])


def test_groups_without_years(tmp_path: Path, tiny_weights: Path) -> None:
    data = make_dataset(tmp_path / "faces", [20, 40], ["20-29", 40])
    report = evaluate(data, [tiny_weights], None, None, Options(targets=[5], limit=1), "cpu")
    assert report["models"][0]["classification"]["mae"]["count"] == 1
    assert any("1 of 2 faces are labelled with a group only" in r for r in report["remarks"])


# -- pictures of other systems ------------------------------------------------------------------


def shade(crop: np.ndarray, level: float) -> np.ndarray:
    """The face with a mean level of about this."""
    return np.clip(crop * (level / crop.mean()), 0, 255).astype(np.uint8)


def test_pictures_of_another_system(
    data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    """A system that always makes faces of 31 (the judge sees brightness), for two of six faces."""
    folder = tmp_path / "other"
    folder.mkdir()
    for face, own in ((0, 20), (2, 40)):
        for age in (30, 50, own):
            Image.fromarray(shade(crop, 31)).save(folder / f"{face}_{age}.png")
    Image.fromarray(np.zeros((256, 256, 3), np.uint8)).save(folder / "2_70.png")
    Image.fromarray(crop).save(folder / "9_70.png")
    options = Options(targets=[30, 50, 70, 80], people=2, out=tmp_path / "out")
    report = evaluate(data, [tiny_weights], {"other": folder}, ALL, options, "cpu")
    ours, other = report["models"]
    assert ours["reconstruction"]["l1"]["count"] == 2  # the same faces for both
    assert other["kind"] == "pictures"
    assert other["name"] == "other"
    assert other["sha256"] is None
    assert other["classification"] is None
    assert other["cycle"] is None
    judged = shade(crop, 31).mean()
    rows = {row["target"]: row for row in other["control"]["targets"]}
    assert list(rows) == [30, 50, 70]
    assert rows[30]["judged_age"]["value"] == pytest.approx(judged, abs=1e-3)
    assert rows[50]["judged_error"]["value"] == pytest.approx(50 - judged, abs=1e-3)
    assert rows[70]["judged_age"] is None  # a black picture is no face
    bands = {row["band"]: row for row in other["bands"]}
    assert bands["20-39"]["judged_in_band"]["value"] == 1
    assert bands["50+"]["judged_in_band"] is None
    assert [row["target"] for row in other["identity"]["targets"]] == [30, 50, 70]
    shades = [(crop * share).astype(int) for share in (1, 0.8)]
    l1 = [np.abs(shade(crop, 31).astype(int) - face).mean() / 127.5 for face in shades]
    assert other["reconstruction"]["l1"]["value"] == pytest.approx(np.mean(l1), abs=1e-4)
    assert [row["target"] for row in other["sharpness"]] == [30, 50, 70]
    told = " ".join(report["remarks"])
    assert "drawn from the 2" in told
    assert "In 1 results of other no face was found" in told
    assert "1 results of other belong to no input" in told
    assert "other lacks 1 of 6 results" in told
    assert "count only where this is the face's own age" in told
    assert "--to" not in told
    assert {"random"} <= set(other["sheets"])
    with Image.open(tmp_path / "out" / "sheet-other-random.jpg") as sheet:
        assert "system=other" in str(dict(sheet.getexif()))


def test_pictures_get_the_figures_of_the_weights_that_made_them(
    data: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    """Files between a model and the judges change nothing."""
    inputs, (system,) = open_inputs(data), open_weights([tiny_weights], torch.device("cpu"))
    everyone, folder = np.arange(len(inputs)), tmp_path / "made"
    folder.mkdir()
    faces = Crops(
        everyone, inputs.crops(everyone), inputs.landmarks(everyone), inputs.ages[everyone]
    )
    targets = [np.full(len(inputs), age) for age in (5.0, 30.0)]
    for aged, ages in zip(
        system.age(faces, [*targets, inputs.ages]), [*targets, inputs.ages], strict=True
    ):
        for i, image in enumerate(aged.images):
            Image.fromarray(image).save(folder / f"{i}_{ages[i]:g}.png")
    options = Options(targets=[5, 30])
    report = evaluate(data, [tiny_weights], {"made": folder}, ALL, options, "cpu")
    ours, made = report["models"]
    for key in ("control", "reconstruction", "sharpness"):
        assert made[key] == ours[key], key
    assert made["bands"][2] == ours["bands"][2]
    assert made["identity"]["targets"] == [
        t for t in ours["identity"]["targets"] if t["target"] == 30
    ]


def test_photos_with_inputs_of_their_own(
    data: Path, tmp_path: Path, portrait: np.ndarray, crop: np.ndarray
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(portrait).save(folder / "me.png")
    Image.fromarray(portrait // 4).save(folder / "me_30.png")
    options = Options(targets=[30], out=tmp_path / "out", people=2)
    report = evaluate(data, [], {"photos": folder}, ALL, options, "cpu")
    (model,) = report["models"]
    judged = model["control"]["targets"][0]["judged_age"]
    assert judged["value"] == pytest.approx((crop // 4).mean(), abs=1)
    assert judged["count"] == 1
    assert model["reconstruction"] is None
    assert model["by_gender"] == {}
    assert model["identity"]["top1"]["count"] == 1
    assert "without labels" in " ".join(report["remarks"])
    assert (tmp_path / "out" / model["sheets"]["random"]).exists()


def test_what_cannot_be_compared(
    data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    folders = {}
    for name, face in (("a", 0), ("b", 1)):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        Image.fromarray(crop).save(folders[name] / f"{face}_30.png")
    with pytest.raises(DataError, match="a and b have no input in common"):
        evaluate(data, [], folders, None, None, "cpu")
    with pytest.raises(ConfigError, match="Two systems are called tiny"):
        evaluate(data, [tiny_weights], {"tiny": folders["a"]}, None, None, "cpu")
    with pytest.raises(ConfigError, match="nothing to measure"):
        evaluate(data, [], None, None, None, "cpu")


# -- files and arguments ------------------------------------------------------------------------


def test_results_are_not_overwritten(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    for name in ("sheet-tiny-worst.jpg", "report.html"):
        out = tmp_path / name.replace(".", "-")
        out.mkdir()
        (out / name).write_text("mine")
        options = Options(targets=[5], limit=1, people=1, out=out)
        with pytest.raises(OutputError, match=f"{name} exists already"):
            evaluate(data, [tiny_weights], None, AGE, options, "cpu")
        assert [path.name for path in out.iterdir()] == [name]
    options = Options(targets=[5], limit=1, people=0, out=out, force=True)
    report = evaluate(data, [tiny_weights], None, AGE, options, "cpu")
    assert report["models"][0]["sheets"] == {}
    assert (out / "report.html").read_text() != "mine"


def test_bad_arguments(data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    with pytest.raises(AgeError, match="500"):
        evaluate(data, [tiny_weights], None, None, Options(targets=[500]), "cpu")
    with pytest.raises(ConfigError, match="no target age"):
        evaluate(data, [tiny_weights], None, None, Options(targets=[]), "cpu")
    with pytest.raises(DataError, match="No dataset folder"):
        evaluate(tmp_path / "none", [tiny_weights], None, None, None, "cpu")


def test_the_fine_sweep() -> None:
    assert TARGETS == (2, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85)


def test_command_prints_json(run, data: Path, tiny_weights: Path) -> None:
    answer = run(
        *("evaluate", "--data", data, "--weights", tiny_weights, "--to", "5,70"),
        *("--limit", 2, "--json", "--device", "cpu"),
    )
    assert answer.code == 0, answer.err
    report = json.loads(answer.out)
    assert [row["target"] for row in report["models"][0]["sharpness"]] == [5, 70]
    assert all(line.startswith("remark: ") for line in answer.errors)
    assert "No age judge" in answer.errors[0]


def test_command_prints_tables(
    run, data: Path, tiny_weights: Path, tmp_path: Path, crop: np.ndarray
) -> None:
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "other"
    folder.mkdir()
    Image.fromarray(crop).save(folder / "0_25.png")
    answer = run(
        *("evaluate", "--data", data, "--weights", tiny_weights, "--images", f"other={folder}"),
        *("--to", 25, "--age-judge", write_judge(tmp_path / "judge.onnx"), "--device", "cpu"),
        *("--identity-judge", write_embedder(tmp_path / "embedder.onnx")),
    )
    assert answer.code == 0, answer.err
    for text in ("Table 1", "Table 2", "Table 3", "tiny", "other", "top-1"):
        assert text in answer.out
    assert "--perceptual-judge" in answer.errors[0]


def test_pictures_alone_need_no_weights(run, data: Path, tmp_path: Path, crop: np.ndarray) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    Image.fromarray(crop).save(folder / "0_25.png")
    answer = run("evaluate", "--data", data, "--images", f"o={folder}", "--to", 25, "--json")
    assert answer.code == 0, answer.err
    assert [model["name"] for model in json.loads(answer.out)["models"]] == ["o"]


def test_command_refuses(run, data: Path, tiny_weights: Path, tmp_path: Path) -> None:
    basis = ["evaluate", "--data", data, "--weights", tiny_weights]
    for more, code, said in [
        (["--age-judge", tmp_path / "none.onnx"], 1, "none.onnx"),
        (["--identity-judge", tmp_path / "none.onnx"], 1, "none.onnx"),
        (["--perceptual-judge", tmp_path / "none.pth"], 1, "none.pth"),
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
