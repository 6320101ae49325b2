"""The packaged model: its file, its metadata and card, and its results on the example photo."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import faceage
from faceage import hub
from faceage.api import FaceAger
from faceage.checkpoints import load_weights
from faceage.imaging.photos import as_photo

SHIPPED = hub.packaged_dir() / hub.REGISTRY[hub.DEFAULT].file
pytestmark = pytest.mark.skipif(not SHIPPED.exists(), reason="no weights have been trained yet")


@pytest.fixture(scope="module")
def ager() -> FaceAger:
    return faceage.load(device="cpu")


@pytest.fixture(scope="module")
def metadata() -> dict[str, str]:
    return hub.read_metadata(SHIPPED)


@pytest.fixture(scope="module")
def card() -> str:
    return (hub.packaged_dir() / "README.md").read_text(encoding="utf-8")


def test_the_file_is_listed_intact_and_small() -> None:
    assert {check.path.name: check.problem for check in hub.verify()}[SHIPPED.name] == ""
    assert SHIPPED.stat().st_size < 40e6


def test_the_metadata_are_complete(metadata: dict[str, str]) -> None:
    for key in ("config", "data", "images_seen", "figures", "licence", "recipe"):
        assert metadata.get(key), key
    assert json.loads(metadata["figures"])
    assert "non-commercial" in metadata["licence"]
    assert int(metadata["images_seen"]) > 0


# --- the card and the metadata agree --------------------------------------------------------------


def test_card_and_metadata_state_the_same_training(metadata: dict[str, str], card: str) -> None:
    assert f"{int(metadata['images_seen']):,} images" in card
    faces = re.search(r"(\d+) faces", metadata["data"])
    assert faces
    assert f"{int(faces[1]):,} pictures" in card
    for dataset in metadata["data"].partition(":")[0].split(", "):
        assert dataset in card
    assert f"recipe `{metadata['recipe']}`" in card


def test_card_and_metadata_state_the_same_licence(metadata: dict[str, str], card: str) -> None:
    for terms in ("non-commercial research", "CC BY-NC-SA 4.0", "UTKFace: non-commercial research"):
        assert terms in metadata["licence"]
        assert terms in card


def test_card_states_the_size_of_the_model(metadata: dict[str, str], card: str) -> None:
    model, _ = load_weights(SHIPPED)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert f"{parameters / 1e6:.1f} M parameters" in card
    assert f"{SHIPPED.stat().st_size / 1e6:.0f} MB" in card
    assert f"{json.loads(metadata['config'])['size']} px" in card


@pytest.mark.parametrize(
    ("key", "text", "scale", "digits"),
    [
        ("val/accuracy", "accuracy of {} %", 100, 1),
        ("val/one_off", "within-one-group accuracy of {} %", 100, 1),
        ("val/mae", "MAE of {} years", 1, 2),
    ],
)
def test_card_and_metadata_state_the_same_figures(
    metadata: dict[str, str], card: str, key: str, text: str, scale: int, digits: int
) -> None:
    figure = f"{scale * json.loads(metadata['figures'])[key]:.{digits}f}"
    assert text.format(figure) in " ".join(card.split())


def test_images_seen_are_within_the_length_of_the_training(metadata: dict[str, str]) -> None:
    assert int(metadata["images_seen"]) <= json.loads(metadata["training"])["images"]


# --- distilled-128 --------------------------------------------------------------------------------


def test_the_second_model_states_its_figures_and_licence(card: str, astronaut: Path) -> None:
    path = hub.find("distilled-128")
    assert {check.path.name: check.problem for check in hub.verify()}[path.name] == ""
    found = hub.read_metadata(path)
    assert "non-commercial research" in found["licence"]
    figures = json.loads(found["figures"])
    section = card.partition("### distilled-128")[2]
    assert f"accuracy {100 * figures['val/accuracy']:.1f} %" in section
    assert f"MAE {figures['val/mae']:.2f} years" in section
    assert int(found["images_seen"]) <= json.loads(found["training"])["images"]
    (prediction,) = faceage.load("distilled-128", device="cpu").predict(astronaut)
    assert 25 < prediction.age < 50


# --- results --------------------------------------------------------------------------------------


def test_the_astronaut_is_an_adult(ager: FaceAger, astronaut: Path) -> None:
    (found,) = ager.predict(astronaut)
    assert 20 < found.age < 60  # she was 35
    assert found.interval[1] - found.interval[0] < 40


def test_predicted_ages_rise_with_the_target(ager: FaceAger, astronaut: Path) -> None:
    before = as_photo(astronaut).pixels
    results = ager.age(astronaut, to=[5, 25, 45, 70])
    predicted = [ager.predict(aged.pixels)[0].age for aged in results]
    assert predicted == sorted(predicted)
    assert predicted[-1] - predicted[0] > 20
    differences = [np.abs(aged.pixels.astype(int) - before).mean() for aged in results]
    assert max(differences) < 10  # the face changes, the photo does not
    assert min(differences[0], differences[-1]) > 0.05  # far from the source age
    assert min(differences) > 0
