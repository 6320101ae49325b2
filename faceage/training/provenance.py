"""What exported weights state about their training: data, options, licence, initial weights.

No path of the machine is written into weights.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from faceage import hub
from faceage.data.datasets import Dataset
from faceage.training.config import PATHS, TrainConfig, to_dict

MAX_SOURCES = 20  # listed; a csv may name a source for every picture


def describe_run(
    config: TrainConfig, dataset: Dataset, sources: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """The entries of the weights' metadata that are the same in every export of a run.

    Args:
        sources: descriptions (`describe_weights`) of other weights that the run used, by name.
    """
    metadata = {
        "recipe": config.recipe,
        "data": describe_data(dataset),
        "licence": config.licence,
        "training": json.dumps(to_dict(config) | dict.fromkeys(PATHS, "")),
    }
    return metadata | {name: json.dumps(dict(source)) for name, source in sources.items()}


def describe_data(dataset: Dataset) -> str:
    """Name and number of faces, and their sources if known: "faces: 3 faces (a 2, b 1)"."""
    text = f"{dataset.name}: {len(dataset)} faces"
    names = (re.split(r"[\\/]", sample.source)[-1] for sample in dataset.samples)
    counts = Counter(name for name in names if name).most_common()
    if not counts:
        return text
    sources = ", ".join(f"{name} {count}" for name, count in counts[:MAX_SOURCES])
    if len(counts) > MAX_SOURCES:
        sources += f", and {len(counts) - MAX_SOURCES} more sources"
    return f"{text} ({sources})"


def describe_weights(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    """Identify weights that a run uses: sha256, data and licence."""
    stated = {name: metadata[name] for name in ("data", "licence") if name in metadata}
    return {"sha256": hub.file_sha256(path), **stated}
