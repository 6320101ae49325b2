"""What is measured of each face: worked out by hand on a stand-in model and stand-in judges."""

from pathlib import Path

import numpy as np
import pytest
from stand_ins import (
    CPU,
    LANDMARKS,
    AngleJudge,
    BrightnessJudge,
    LevelJudge,
    make_dataset,
    open_inputs,
    stub_system,
)

from faceage.distributed import Processes
from faceage.evaluation import measure
from faceage.evaluation.inputs import LabelledInputs
from faceage.evaluation.measure import Judges, Measurer, Plan, inner_sharpness, picture_mask
from faceage.evaluation.systems import Aged

ALONE = Processes(0, 1, CPU)
ALL = Judges(BrightnessJudge(), AngleJudge(), LevelJudge())
LEVELS, AGES = [5, 25, 52, 69], [5, 25, 45, 70]


@pytest.fixture
def inputs(tmp_path: Path) -> LabelledInputs:
    """Four faces; the stand-in model is right about two."""
    return open_inputs(make_dataset(tmp_path / "data", LEVELS, AGES, landmarks=LANDMARKS))


def sent(inputs: LabelledInputs, plan: Plan, judges: Judges = ALL, system=None) -> dict:
    """All the faces' arrays; the other age is 20 for everybody."""
    everyone = np.arange(len(inputs))
    others = np.full(len(inputs), 20.0)
    measurer = Measurer(judges, ALONE)
    return measurer.aged(system or stub_system(), inputs, everyone, plan, others)


def test_ages_told(inputs: LabelledInputs) -> None:
    told = Measurer(Judges(), ALONE).told(stub_system(), inputs)
    assert told.shape == (4, 101)
    assert told.argmax(1).tolist() == LEVELS


def test_unchanged(inputs: LabelledInputs) -> None:
    found = Measurer(ALL, ALONE).unchanged(inputs, np.array([3, 0]), "judging")
    assert found["judged"].tolist() == [69, 5]
    assert found["embedding"][1] == pytest.approx([1, 0], abs=0.04)
    assert found["looks"][:, 0] == pytest.approx([69 / 255, 5 / 255])
    assert Measurer(Judges(), ALONE).unchanged(inputs, np.array([0]), "nobody judges") == {}


def test_targets(inputs: LabelledInputs) -> None:
    plan = Plan((40.0, 0.0), identity=(40.0, 20.0), looks=(60.0,))
    assert plan.targets == [0, 20, 40, 60]
    found = sent(inputs, plan)
    rise = np.array([0, 25.5, 51, 76.5])  # hundredths of 127.5 levels
    assert found["judged"] == pytest.approx(np.array(LEVELS)[:, None] + rise, abs=0.5)
    assert found["embedding"].shape == (4, 2, 2)  # only where it was asked for
    assert np.arctan2(*found["embedding"][0].T[::-1]) * 510 / np.pi == pytest.approx(
        [5 + 25.5, 5 + 51], abs=0.5
    )
    assert found["looks"].shape == (4, 1, 2)
    assert found["looks"][:, 0, 0] * 255 == pytest.approx(np.array(LEVELS) + 76.5, abs=0.5)
    assert found["made"].all()
    assert found["shown"].all()
    assert not found["lost"].any()


def test_own_age_and_another_and_back(inputs: LabelledInputs) -> None:
    found = sent(inputs, Plan((0.0,)))
    own = np.array(AGES) / 100  # the stand-in always adds
    assert found["own_l1"] == pytest.approx(own, abs=0.005)  # pictures have whole levels
    assert found["own_lpips"] == pytest.approx(own / 2, abs=0.005)
    assert found["back_l1"] == pytest.approx(own + 0.2, abs=0.01)
    assert found["back_lpips"] == pytest.approx((own + 0.2) / 2, abs=0.01)


def test_padding_counts_nowhere(tmp_path: Path) -> None:
    half = np.zeros((256, 256, 3), np.uint8)
    half[:, 128:] = 255  # white stays white when something is added
    folder = make_dataset(tmp_path / "data", [half], [50], "128 0 256 256", LANDMARKS)
    found = sent(open_inputs(folder), Plan((0.0,)))
    assert found["own_l1"] == pytest.approx([0])
    assert found["own_lpips"] == pytest.approx([0])
    folder = make_dataset(tmp_path / "data", [half], [50], landmarks=LANDMARKS)
    found = sent(open_inputs(folder), Plan((0.0,)))
    assert found["own_l1"] == pytest.approx([0.25], abs=0.003)
    assert found["own_lpips"] == pytest.approx([0.125], abs=0.003)


def test_sharpness(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 200, (256, 256, 3)).astype(np.uint8)
    inputs = open_inputs(make_dataset(tmp_path / "data", [noise], [30]))
    found = sent(inputs, Plan((40.0, 100.0)), Judges())
    before = inner_sharpness(noise[None])[0]
    after = inner_sharpness(np.clip(noise[None] + 127.5, 0, 255))[0]  # a good third is white
    assert found["sharp_in"] == pytest.approx([before])
    assert found["sharp"][0] == pytest.approx([before, after], rel=0.01)
    assert after < 0.6 * before
    assert set(found) == {
        *("sharp_in", "sharp", "skin_in", "skin", "own_l1", "back_l1", "made", "shown", "lost"),
    }  # nothing is said where nobody judges


def test_skin(inputs: LabelledInputs) -> None:
    found = sent(inputs, Plan((0.0, 100.0)), Judges())
    assert found["skin_in"] == pytest.approx(LEVELS)
    assert found["skin"] == pytest.approx(np.array(LEVELS)[:, None] + [0, 127.5], abs=0.5)


class Gaps:
    """Has a picture of every second face, and the last one shows no face."""

    name, inputs, repeats = "gaps", None, False
    available = np.array([1, 3])

    def age(self, faces, targets):
        made = faces.places % 2 == 1
        for _ in targets:
            found = made & (faces.places != 3)
            points = np.where(found[:, None, None], faces.landmarks, np.nan)
            yield Aged(faces.images, points, made, found)


def test_what_is_not_there_is_not_measured(inputs: LabelledInputs) -> None:
    found = sent(inputs, Plan((10.0, 30.0), identity=(30.0,), looks=(30.0,)), system=Gaps())
    nothing = [True, False, True, True]
    for name in ("judged", "sharp"):
        assert np.isnan(found[name]).tolist() == [[gap, gap] for gap in nothing]
    for name in ("embedding", "looks"):
        assert np.isnan(found[name][:, 0, 0]).tolist() == nothing
    for name in ("own_l1", "own_lpips"):
        assert np.isnan(found[name]).tolist() == nothing
    assert found["own_l1"][1] == 0
    assert "back_l1" not in found  # it ages nothing itself
    assert found["made"][:, 0].tolist() == [False, True, False, True]
    assert found["lost"].tolist() == [0, 0, 0, 3]


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

    judges, everyone = Judges(BrightnessJudge()), np.arange(7)
    alone = Measurer(judges, ALONE).unchanged(inputs, everyone, "alone")
    Measurer(judges, Half(0, 2, CPU)).unchanged(inputs, everyone, "first")
    both = Measurer(judges, Half(1, 2, CPU)).unchanged(inputs, everyone, "second")
    assert [len(share) for share in shares] == [2, 2]
    assert both["judged"].tolist() == alone["judged"].tolist() == list(range(10, 80, 10))


def test_fewer_batches_than_processes(tmp_path: Path) -> None:
    inputs = open_inputs(make_dataset(tmp_path / "data", [10], [30]))
    others: list = [{"judged": np.array([10.0])}]

    class Idle(Processes):
        def gather(self, value):
            assert value == []
            return [others, []]

    measurer = Measurer(Judges(BrightnessJudge()), Idle(1, 2, CPU))
    assert measurer.unchanged(inputs, np.array([0]), "idle")["judged"].tolist() == [10]


def test_picture_mask() -> None:
    mask = picture_mask(np.array([[0.0, 0, 1, 1], [0.5, 0.25, 1, 1]]), 4)
    assert mask.shape == (2, 4, 4, 1)
    assert mask[0].all()
    assert mask[1, ..., 0].astype(int).tolist() == [[0, 0, 0, 0], *[[0, 0, 1, 1]] * 3]
