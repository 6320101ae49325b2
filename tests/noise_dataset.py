"""A small dataset of random pictures, and the options of a tiny training on it."""

import json
from pathlib import Path

import numpy as np
from conftest import TINY
from PIL import Image

# Values of `--set`.
TINY_TRAINING = (
    *(f"model.{name}={json.dumps(value)}" for name, value in vars(TINY).items()),
    *("projected=false", "losses.target_age=0", "warmup_images=0", "batch_size=8"),
)


def write_noise(root: Path) -> Path:
    """Twenty crops of noise with labels; some with padding, some with an age group only."""
    random = np.random.default_rng(0)
    rows = ["file,age,age_group,set,valid,sharp"]
    for i in range(20):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(root / f"{i}.png")
        label = ",30-39" if i % 5 == 1 else f"{4 * i},"
        split = "val" if i % 4 == 3 else "train"
        rows.append(f"{i}.png,{label},{split},{'30 0 256 200' if i % 3 else ''},{50 + i}")
    (root / "faces.csv").write_text("\n".join(rows) + "\n")
    return root


def write_noise_pairs(root: Path) -> Path:
    """Four people at three ages each."""
    random = np.random.default_rng(1)
    root.mkdir()
    rows = ["file,age,set,person"]
    for i in range(12):
        Image.fromarray(random.integers(0, 256, (64, 64, 3), np.uint8)).save(root / f"{i}.png")
        rows.append(f"{i}.png,{5 + 30 * (i % 3)},train,{i // 3}")
    (root / "faces.csv").write_text("\n".join(rows) + "\n")
    return root
