"""Values per face, computed by hand on a stand-in model and stand-in evaluators."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stand_ins import (
    CPU,
    LANDMARKS,
    AngleEvaluator,
    BrightnessEvaluator,
    LevelEvaluator,
    MeanEvaluator,
    make_dataset,
    open_inputs,
    stub_method,
)

from faceage.distributed import Processes
from faceage.evaluation import measure
from faceage.evaluation.common import Inputs
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.measure import Measurer, degrade, inner_sharpness, picture_mask
from faceage.evaluation.methods import AgedBatch, FolderMethod
from faceage.progress import progress_bar

ALONE = Processes(0, 1, CPU)
ALL = Evaluators(BrightnessEvaluator(), AngleEvaluator(), LevelEvaluator(), MeanEvaluator())
LEVELS, AGES = [5, 25, 52, 69], [5, 25, 45, 70]


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Four faces; the stand-in model is right about two."""
    return open_inputs(make_dataset(tmp_path / "data", LEVELS, AGES, landmarks=LANDMARKS))


def measurer(inputs: Inputs, evaluators: Evaluators = ALL, processes=ALONE) -> Measurer:
    return Measurer(inputs, evaluators, processes, progress_bar(shown=False))


def age(inputs: Inputs, targets: list[float], evaluators: Evaluators = ALL, method=None) -> dict:
    """The arrays of all faces; the other age is 20 for everybody."""
    everyone, others = np.arange(len(inputs)), np.full(len(inputs), 20.0)
    return measurer(inputs, evaluators).aged(method or stub_method(), everyone, targets, others)


def test_predicted_distributions(inputs: Inputs) -> None:
    found = measurer(inputs).predict(stub_method(), np.arange(4))["years"]
    assert found.shape == (4, 101)
    assert found.argmax(1).tolist() == LEVELS


def test_predicted_distributions_of_degraded_faces(inputs: Inputs) -> None:
    found = measurer(inputs).predict(stub_method(), np.array([3, 0]), degraded=True)
    assert list(found) == list(measure.DEGRADATIONS)
    for years in found.values():  # grey pictures of one level, which JPEG quantises
        assert years.argmax(1) == pytest.approx([69, 5], abs=3)
    assert found["none"].argmax(1).tolist() == [69, 5]


def test_degradations() -> None:
    random = np.random.default_rng(0)
    crops = random.integers(0, 256, (2, 256, 256, 3)).astype(np.uint8)
    np.testing.assert_array_equal(degrade(crops, "none"), crops)
    grey = degrade(crops, "grey")
    assert (grey == grey[..., :1]).all()
    assert grey[0, 5, 7, 0] == pytest.approx(crops[0, 5, 7] @ [0.299, 0.587, 0.114], abs=1)
    small = degrade(crops, "48 px")
    assert small.shape == crops.shape
    # The crop has 96 px, the inner half of it 48: noise is averaged over 2.67 x 2.67 px.
    assert small.std() < 0.5 * crops.std()
    blocks = np.repeat(np.repeat(random.integers(0, 256, (1, 8, 8, 3)), 32, 1), 32, 2)
    blocks = blocks.astype(np.uint8)
    middle = np.s_[:, 16::32, 16::32]  # structures of a twelfth of the side remain
    difference = degrade(blocks, "48 px")[middle].astype(int) - blocks[middle]
    assert np.abs(difference).max() <= 2
    compressed = degrade(crops, "JPEG 30")
    assert compressed.shape == crops.shape
    assert 5 < np.abs(compressed.astype(int) - crops).mean() < 80
    every = degrade(crops, "48 px, grey, JPEG 30")
    assert (every == every[..., :1]).all()
    assert every.std() < small.std()


def test_unchanged(inputs: Inputs) -> None:
    found = measurer(inputs).unchanged()
    assert found["predicted_age"].tolist() == LEVELS
    assert found["embedding"][0] == pytest.approx([1, 0], abs=0.04)
    assert found["features"][:, 0] == pytest.approx(np.array(LEVELS) / 255)
    assert found["crop_features"] == pytest.approx(2 * found["features"])
    assert found["inception"].shape == (4, 3)
    assert measurer(inputs, Evaluators()).unchanged() == {}


def test_targets(inputs: Inputs) -> None:
    found = age(inputs, [0.0, 7.0, 40.0])
    for target in (0, 7, 40):
        rise = 1.275 * target  # hundredths of 127.5 levels
        expected = np.array(LEVELS) + rise
        assert found["predicted_age", target] == pytest.approx(expected, abs=0.5)
        angle = np.arctan2(*found["embedding", target].T[::-1])
        assert angle * 510 / np.pi == pytest.approx(expected, abs=0.5)
        assert found["exists", target].all()
    # Features are of the targets of the ranges alone, as 7.
    assert found["features", 7.0][:, 0] * 255 == pytest.approx(np.array(LEVELS) + 9, abs=0.5)
    assert found["crop_features", 7.0].shape == (4, 2)
    assert found["inception", 7.0].shape == (4, 3)
    assert ("features", 40.0) not in found
    assert not found["lost"].any()


def test_reconstruction_and_cycle_reconstruction(inputs: Inputs) -> None:
    found = age(inputs, [0.0])
    own = np.array(AGES) / 100  # the stand-in always adds
    assert found["reconstruction_l1"] == pytest.approx(own, abs=0.005)  # pictures have whole levels
    assert found["reconstruction_lpips"] == pytest.approx(own / 2, abs=0.005)
    assert found["cycle_l1"] == pytest.approx(own + 0.2, abs=0.01)
    assert found["cycle_lpips"] == pytest.approx((own + 0.2) / 2, abs=0.01)


def test_padding_does_not_count(tmp_path: Path) -> None:
    half = np.zeros((256, 256, 3), np.uint8)
    half[:, 128:] = 255  # white stays white when something is added
    folder = make_dataset(tmp_path / "data", [half], [50], "128 0 256 256", LANDMARKS)
    found = age(open_inputs(folder), [0.0])
    assert found["reconstruction_l1"] == pytest.approx([0])
    assert found["reconstruction_lpips"] == pytest.approx([0])
    folder = make_dataset(tmp_path / "data", [half], [50], landmarks=LANDMARKS)
    found = age(open_inputs(folder), [0.0])
    assert found["reconstruction_l1"] == pytest.approx([0.25], abs=0.003)
    assert found["reconstruction_lpips"] == pytest.approx([0.125], abs=0.003)


def test_sharpness(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (256, 256, 3)).astype(np.uint8)
    inputs = open_inputs(make_dataset(tmp_path / "data", [noise], [30]))
    found = age(inputs, [7.0, 100.0], Evaluators())
    before = inner_sharpness(noise[None])[0]
    after = inner_sharpness(np.clip(noise[None] + 127.5, 0, 255))[0]  # a good third is white
    assert found["sharpness"] == pytest.approx([before])
    assert found["sharpness", 100.0] == pytest.approx([after], rel=0.01)
    assert after < 0.6 * before
    of_targets = {(name, t) for name in ("sharpness", "skin", "exists") for t in (7.0, 100.0)}
    of_faces = {"sharpness", "skin", "reconstruction_l1", "cycle_l1", "lost"}
    assert set(found) == of_targets | of_faces  # nothing else without evaluators


def test_skin(inputs: Inputs) -> None:
    found = age(inputs, [0.0, 100.0], Evaluators())
    assert found["skin"] == pytest.approx(LEVELS)
    assert found["skin", 0.0] == pytest.approx(LEVELS)
    assert found["skin", 100.0] == pytest.approx(np.array(LEVELS) + 127.5, abs=0.5)


class Gaps(FolderMethod):
    """Has a result for every second face, and the last one shows no face."""

    def __init__(self) -> None:
        self.info = stub_method().info

    def age(self, faces, targets):
        exists = faces.indices % 2 == 1
        for _ in targets:
            found = exists & (faces.indices != 3)
            points = np.where(found[:, None, None], np.ones((len(found), 5, 2)), np.nan)
            yield AgedBatch(faces.images, exists, found, points)


def test_missing_results_give_nan(inputs: Inputs) -> None:
    found = age(inputs, [10.0, 30.0], method=Gaps())
    missing = [True, False, True, True]
    for name in ("predicted_age", "sharpness", "skin"):
        assert np.isnan(found[name, 10.0]).tolist() == missing
    for name in ("embedding", "features", "crop_features", "inception"):
        assert np.isnan(found[name, 30.0][:, 0]).tolist() == missing
    for name in ("reconstruction_l1", "reconstruction_lpips"):
        assert np.isnan(found[name]).tolist() == missing
    assert found["reconstruction_l1"][1] == 0
    assert "cycle_l1" not in found  # pictures cannot be aged again
    assert found["exists", 10.0].tolist() == [False, True, False, True]
    assert found["lost"].tolist() == [0, 0, 0, 3]


def test_landmarks_of_a_result_are_those_of_the_method(inputs: Inputs) -> None:
    seen = []

    class Watch(AngleEvaluator):
        def embed(self, crops, landmarks):
            seen.append(landmarks)
            return super().embed(crops, landmarks)

    age(inputs, [10.0], Evaluators(identity=Watch()), Gaps())
    assert seen[0].tolist() == np.ones((1, 5, 2)).tolist()
    age(inputs, [10.0], Evaluators(identity=Watch()))
    assert seen[1][0, 0].tolist() == [96, 121]  # a model leaves them where they are


def test_a_share_is_measured_in_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes, one after the other, whose results are exchanged by hand."""
    monkeypatch.setattr(measure, "BATCH", 2)
    inputs = open_inputs(make_dataset(tmp_path / "data", list(range(10, 80, 10)), [30] * 7))
    shares: list[list] = []

    class Half(Processes):
        def gather(self, value):
            shares.append(value)
            return shares if self.rank else [value, value]

    evaluators = Evaluators(BrightnessEvaluator())
    alone = measurer(inputs, evaluators).unchanged()
    measurer(inputs, evaluators, Half(0, 2, CPU)).unchanged()
    both = measurer(inputs, evaluators, Half(1, 2, CPU)).unchanged()
    assert [len(share) for share in shares] == [2, 2]
    expected = list(range(10, 80, 10))
    assert both["predicted_age"].tolist() == alone["predicted_age"].tolist() == expected


def test_fewer_batches_than_processes(tmp_path: Path) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10], [30]))
    others: list = [{"predicted_age": np.array([10.0])}]

    class Idle(Processes):
        def gather(self, value):
            assert value == []
            return [others, []]

    idle = measurer(inputs, Evaluators(BrightnessEvaluator()), Idle(1, 2, CPU))
    assert idle.unchanged()["predicted_age"].tolist() == [10]


def test_picture_mask() -> None:
    mask = picture_mask(np.array([[0.0, 0, 1, 1], [0.5, 0.25, 1, 1]]), 4)
    assert mask.shape == (2, 4, 4, 1)
    assert mask[0].all()
    assert mask[1, ..., 0].astype(int).tolist() == [[0, 0, 0, 0], *[[0, 0, 1, 1]] * 3]


def test_a_compressed_crop_is_a_jpeg_of_quality_30(tmp_path: Path) -> None:
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(crop).save(tmp_path / "crop.jpg", quality=30)
    with Image.open(tmp_path / "crop.jpg") as image:
        np.testing.assert_array_equal(degrade(crop[None], "JPEG 30")[0], np.asarray(image))
