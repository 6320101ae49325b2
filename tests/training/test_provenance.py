"""What the metadata of weights state about data, licence and options."""

import json
from pathlib import Path

from faceage.data.datasets import Dataset, Sample
from faceage.training.config import make_config
from faceage.training.provenance import MAX_SOURCES, describe_data, describe_run


def _dataset(*sources: str) -> Dataset:
    samples = [Sample(f"{i}.png", 0, source=source) for i, source in enumerate(sources)]
    return Dataset("faces", Path("/home/someone/faces"), samples)


def test_sources_are_counted() -> None:
    assert describe_data(_dataset("b", "a", "a", "")) == "faces: 4 faces (a 2, b 1)"
    assert describe_data(_dataset("", "")) == "faces: 2 faces"


def test_sources_are_free_of_paths() -> None:
    sources = ("/home/someone/utk", "C:\\data\\utk", "utk", "/")
    assert describe_data(_dataset(*sources)) == "faces: 4 faces (utk 3)"


def test_a_source_for_every_picture() -> None:
    text = describe_data(_dataset(*(f"s{i:02d}" for i in range(MAX_SOURCES + 5))))
    assert text.endswith("s19 1, and 5 more sources)")


def test_no_path_is_stated() -> None:
    config = make_config(
        "compact", "/home/someone/faces", "/home/someone/run", vgg="/home/someone/vgg.pth"
    )
    metadata = describe_run(config, _dataset("a"), {})
    assert "someone" not in json.dumps(metadata)
    assert json.loads(metadata["training"])["lr"] == config.lr
    assert set(metadata) == {"recipe", "data", "licence", "training"}
    weights = {"sha256": "ab" * 32}
    metadata = describe_run(config, _dataset("a"), {"initial_weights": weights})
    assert json.loads(metadata["initial_weights"]) == weights
