"""`faceage pairs` with a generator and a labeller whose results can be computed by hand."""

import csv
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import faceage
from faceage.data.datasets import open_dataset
from faceage.errors import ConfigError, DataError, WeightsError
from faceage.faces.alignment import crop_face
from faceage.pairs import run as pairs_run
from faceage.pairs.calibration import AgeCalibration
from faceage.pairs.directions import FINE_STEP, fit_direction
from faceage.pairs.generator import LATENT, FaceGenerator, _read_files
from faceage.pairs.labels import (
    FaceLabeller,
    FaceLabels,
    find_saturated,
    fit_age_embedding,
    reasons_to_drop,
    similarity_to,
)
from faceage.pairs.run import PEOPLE_PER_SHARD, PairsConfig, PairsMaker
from faceage.pairs.shards import Rendered, read_images, read_table, write_shard

DOUBLE = AgeCalibration(np.array([0.0, 200]), np.array([0.0, 100]))
STEP = np.array([-3.0, 0, 3])


def make_labels(age: list[float], **changes: list[float]) -> FaceLabels:
    """Labels of faces that differ in age alone, except for `changes`."""
    count = len(age)
    values: dict = {
        "age": np.array(age, float),
        "male": np.full(count, 0.9),
        "yaw": np.zeros(count),
        "misalignment": np.full(count, 0.02),
        "skin": np.full((count, 3), 128.0),
        "glasses": np.zeros(count),
        "hat": np.zeros(count),
        "mouth": np.zeros(count),
        "score": np.full(count, 0.9),
        "embedding": np.zeros((count, 0)),
    }
    return FaceLabels(**(values | {name: np.array(value) for name, value in changes.items()}))


# --- the direction of age ---------------------------------------------------------------------


def test_the_direction_changes_age_and_not_the_held_attribute() -> None:
    random = np.random.default_rng(0)
    age_axis, held_axis = random.normal(size=(2, LATENT))
    held_axis += 0.5 * age_axis  # correlated: following the gradient of age would change it
    w = random.normal(size=(3000, LATENT))
    ages = 40 + w @ age_axis
    direction = fit_direction(w, ages, (w @ held_axis)[:, None], np.zeros(LATENT))
    moved = direction.direction
    assert abs(moved @ held_axis) < 0.1 * abs(moved @ age_axis)
    assert abs(age_axis @ held_axis) > 0.3 * age_axis @ age_axis
    assert direction.correlation > 0.95
    assert direction.predict(w[0]) == pytest.approx(ages[0], abs=2)
    after, _ = direction.walk(w[0], direction.step_to(w[0], 70.0))
    assert direction.predict(after) == pytest.approx(70, abs=1e-3)


def test_fine_layers_move_less() -> None:
    w = np.random.default_rng(0).normal(size=(50, LATENT))
    direction = fit_direction(w, w[:, 0], np.zeros((50, 0)), np.zeros(LATENT))
    coarse, fine = direction.walk(w[0], 2.0)
    assert fine - w[0] == pytest.approx(FINE_STEP * (coarse - w[0]), abs=1e-5)
    assert np.linalg.norm(coarse - w[0]) == pytest.approx(2.0, abs=1e-4)


def test_without_a_teacher_ages_are_the_packaged_classifiers(portrait: np.ndarray) -> None:
    ager = faceage.load(device="cpu")
    (predicted,) = ager.predict(portrait)
    labels = FaceLabeller().label(crop_face(portrait, predicted.face, 256)[None])
    assert labels.age[0] == pytest.approx(predicted.age, abs=1)
    assert np.isnan(labels.male[0])
    assert labels.misalignment[0] < 0.05


# --- which faces are kept ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["", "", ""]),
        ({"score": [0.9, 0.9, 0.5]}, ["", "", "no face"]),
        ({"misalignment": [0.02, 0.02, 0.2]}, ["", "", "misaligned"]),
        ({"yaw": [0.3, 0.0, 0.05]}, ["pose", "", ""]),
        ({"yaw": [np.nan, 0.0, 0.05], "score": [0.0, 0.9, 0.9]}, ["no face", "", ""]),
        ({"glasses": [0.0, 0.0, 0.05]}, ["", "", "glasses"]),
        ({"male": [0.1, 0.9, 0.9]}, ["", "", ""]),  # a child
        ({"male": [0.9, 0.9, 0.1]}, ["", "", "gender"]),
        ({"male": [np.nan] * 3, "glasses": [np.nan] * 3}, ["", "", ""]),
    ],
)
def test_reasons_to_drop(changes: dict, expected: list[str]) -> None:
    labels = make_labels([4, 30, 70], **changes)
    assert reasons_to_drop(labels, 1, np.full(3, np.nan), STEP) == expected


def test_dropped_where_the_identity_changes() -> None:
    labels = make_labels([4, 30, 70])
    assert reasons_to_drop(labels, 1, np.array([0.4, 1.0, -0.2]), STEP) == ["", "", "identity"]


def test_dropped_where_a_farther_step_does_not_change_the_age() -> None:
    age = np.array([2.0, 2.1, 8, 30, 55, 75, 76, 82])
    step = np.array([-6.0, -4, -2, 0, 2, 4, 6, 9])
    expected = [True, False, False, False, False, False, True, True]
    assert find_saturated(age, step, 3).tolist() == expected
    age[-1] = 84  # 9 years older than the last one kept, at 5 farther
    assert find_saturated(age, step, 3).tolist()[-2:] == [True, False]
    assert not find_saturated(np.full(2, 30.0), np.array([0, 0.2]), 0).any()


def test_similarity_without_the_part_that_depends_on_age() -> None:
    random = np.random.default_rng(0)
    age = random.uniform(0, 80, 400)
    people = random.normal(size=(400, 8))
    shift = np.outer(age / 50, np.full(8, 6.0))
    labels = make_labels(age.tolist(), embedding=people + shift)
    coefficients = fit_age_embedding(labels)
    same = make_labels([10, 70], embedding=np.stack([people[0] + 1.2, people[0] + 8.4]))
    assert similarity_to(same, 0, coefficients) == pytest.approx([1, 1], abs=0.05)
    other = make_labels([10, 70], embedding=np.stack([people[0] + 1.2, people[1] + 8.4]))
    assert similarity_to(other, 0, coefficients)[1] < 0.8
    assert np.isnan(similarity_to(make_labels([3, 4]), 0, np.zeros((3, 0)))).all()


def test_held_attributes_are_what_was_measured() -> None:
    labels = make_labels([4, 30, 70], male=[np.nan] * 3, yaw=[0.1, np.nan, 0.3])
    held = labels.held_attributes()
    assert held.shape == (3, 7)  # yaw, skin (3), glasses, hat, mouth
    assert held[:, 0] == pytest.approx([0.1, 0.2, 0.3])


# --- shards -----------------------------------------------------------------------------------


def test_shards_keep_faces_and_their_table(tmp_path: Path) -> None:
    rows = [Rendered("00000/0.webp", 0, -1.5, 3.25), Rendered("00000/1.webp", 0, 2.0, 80.0)]
    images = [np.full((64, 64, 3), level, np.uint8) for level in (40, 200)]
    path = write_shard(tmp_path / "faces-00000.zip", rows, images)
    found, pixels = read_table(path), read_images(path)
    assert found == rows
    assert [int(image.mean()) for image in pixels] == pytest.approx([40, 200], abs=2)
    before = path.read_bytes()
    write_shard(path, rows, images)
    assert path.read_bytes() == before


def test_damaged_shard(tmp_path: Path) -> None:
    path = tmp_path / "faces-00000.zip"
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match="Cannot read the shard"):
        read_images(path)


# --- the command ------------------------------------------------------------------------------


class StandInGenerator:
    """A face is a grey picture; its level is the first coordinate of w, from 0 to 255."""

    mean = np.zeros(LATENT, np.float32)

    def __init__(self) -> None:
        self.rendered = 0

    def sample(self, count: int, seed: int, truncation: float) -> np.ndarray:
        return truncation * np.random.RandomState(seed).randn(count, LATENT).astype(np.float32)

    def render(self, coarse: np.ndarray, fine: np.ndarray, size: int) -> np.ndarray:
        self.rendered += 1
        level = np.clip(128 + 40 * coarse[0], 0, 255)
        return np.full((size, size, 3), level, np.uint8)


class StandInLabeller:
    """A face is as old as its level divided by 3."""

    def label(self, images: np.ndarray) -> FaceLabels:
        return make_labels((images.mean((1, 2, 3)) / 3).tolist())


def make(out: Path, generator: StandInGenerator, labels: str = "one", **options: int) -> Path:
    config = PairsConfig(out, **({"people": 30, "ages": 3, "sample": 60} | options))
    return PairsMaker(config, generator, StandInLabeller(), labels).run()  # type: ignore[arg-type]


def test_it_writes_a_dataset(tmp_path: Path) -> None:
    table = make(tmp_path, StandInGenerator())
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 90
    assert len({row["person"] for row in rows}) == 30
    by_person = [float(row["age"]) for row in rows[:3]]
    assert by_person == sorted(by_person)
    dropped = [row for row in rows if row["kept"] == "0"]
    assert {row["why"] for row in dropped} == {"saturated"}  # ages beyond what a picture can hold
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 90 - len(dropped)
    assert dataset.read(dataset.samples[0]).size == (256, 256)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert "Synthetic" in sheet.info["Description"]


def test_a_calibration_corrects_the_ages_of_the_table_alone(tmp_path: Path) -> None:
    plain, corrected = tmp_path / "plain", tmp_path / "corrected"
    tables = []
    for out, calibration in ((plain, None), (corrected, DOUBLE)):
        config = PairsConfig(out, people=30, ages=3, sample=60)
        labeller: Any = StandInLabeller()
        generator: Any = StandInGenerator()
        table = PairsMaker(config, generator, labeller, "one", calibration).run()
        with table.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    for before, after in zip(*tables, strict=True):
        assert after.pop("predicted_age") == before["age"] == before.pop("predicted_age")
        assert float(after.pop("age")) == pytest.approx(2 * float(before.pop("age")), abs=0.02)
        assert after == before


def test_dropped_faces_are_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def drop_the_first(labels: FaceLabels, *_: object) -> list[str]:
        return ["pose", *[""] * (len(labels) - 1)]

    monkeypatch.setattr(pairs_run, "reasons_to_drop", drop_the_first)
    make(tmp_path, StandInGenerator())
    assert len(open_dataset(tmp_path)) == 60  # of 90: one of three of each person is dropped


def test_it_resumes_and_renders_nothing_twice(tmp_path: Path) -> None:
    generator = StandInGenerator()
    first = make(tmp_path / "a", generator, people=PEOPLE_PER_SHARD)
    done = generator.rendered
    make(tmp_path / "a", generator)  # 5 people more
    assert generator.rendered == done + 5 * 3
    quiet = make(tmp_path / "b", StandInGenerator())
    assert first.read_text() == quiet.read_text()
    for name in ("faces-00000.zip", "faces-00001.zip"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_other_label_models_label_anew_without_rendering(tmp_path: Path) -> None:
    make(tmp_path, StandInGenerator())
    shard = (tmp_path / "faces-00000.zip").read_bytes()
    before = len(list(tmp_path.glob("labels/*.npz")))
    make(tmp_path, StandInGenerator(), labels="two")
    assert len(list(tmp_path.glob("labels/*.npz"))) == 2 * before
    assert (tmp_path / "faces-00000.zip").read_bytes() == shard


def test_a_folder_of_other_options_is_refused(tmp_path: Path) -> None:
    make(tmp_path, StandInGenerator())
    with pytest.raises(ConfigError, match="other values of ages"):
        make(tmp_path, StandInGenerator(), ages=5)


def test_options_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"people is 0.*size is 300"):
        PairsConfig(tmp_path, people=0, size=300).check()


# --- the generator's files --------------------------------------------------------------------


def test_without_openvino(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ConfigError, match=r"pip install 'faceage\[pairs\]'"):
        FaceGenerator(tmp_path)


def test_missing_or_other_generator_files(tmp_path: Path) -> None:
    wheel = tmp_path / "some.whl"
    with pytest.raises(WeightsError, match="pip download --no-deps random-face"):
        _read_files(wheel)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("MappingNetwork", "SynthesisNetwork"):
            for suffix in ("xml", "bin"):
                archive.writestr(f"random_face/data/{name}.{suffix}", b"x")
    with pytest.raises(WeightsError, match="another sha256"):
        _read_files(wheel)
    with pytest.raises(WeightsError, match="No face generator"):
        _read_files(tmp_path)
