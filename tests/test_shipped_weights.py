"""The model that travels with the package, on the example photo."""

import json
from pathlib import Path

import numpy as np
import pytest

import faceage
from faceage import hub
from faceage.api import FaceAger
from faceage.imaging.photos import as_photo

SHIPPED = hub.packaged_dir() / hub.REGISTRY[hub.DEFAULT].file
pytestmark = pytest.mark.skipif(not SHIPPED.exists(), reason="no weights have been trained yet")


@pytest.fixture(scope="module")
def ager() -> FaceAger:
    return faceage.load(device="cpu")


def test_the_file_is_listed_intact_and_small() -> None:
    assert {check.path.name: check.problem for check in hub.verify()}[SHIPPED.name] == ""
    assert SHIPPED.stat().st_size < 40e6


def test_the_file_says_where_it_comes_from() -> None:
    metadata = hub.read_metadata(SHIPPED)
    for key in ("config", "data", "images_seen", "figures", "licence", "recipe"):
        assert metadata.get(key), key
    assert json.loads(metadata["figures"])
    assert "non-commercial" in metadata["licence"]
    assert int(metadata["images_seen"]) > 0


def test_the_model_card_is_there() -> None:
    assert (hub.packaged_dir() / "README.md").stat().st_size > 1000


def test_the_astronaut_is_an_adult(ager: FaceAger, astronaut: Path) -> None:
    (found,) = ager.predict(astronaut)
    assert 20 < found.age < 60  # she was 35
    assert found.interval[1] - found.interval[0] < 40


def test_ageing_goes_the_right_way(ager: FaceAger, astronaut: Path) -> None:
    before = as_photo(astronaut).pixels
    results = ager.age(astronaut, to=[5, 25, 45, 70])
    judged = [ager.predict(aged.pixels)[0].age for aged in results]
    assert judged == sorted(judged)
    assert judged[-1] - judged[0] > 20
    differences = [np.abs(aged.pixels.astype(int) - before).mean() for aged in results]
    assert max(differences) < 10  # a change of the face, not another picture
    assert min(differences[0], differences[-1]) > 0.05  # far from her own age; near it, less
    assert min(differences) > 0
