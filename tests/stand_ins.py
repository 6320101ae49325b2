"""Stand-ins whose answers can be worked out by hand: a model, judges, and grey pictures."""

import csv
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from PIL import Image

from faceage.data.datasets import open_dataset
from faceage.evaluation.inputs import LabelledInputs
from faceage.evaluation.systems import Weights
from faceage.models.generator import Change, Decomposed

CPU = torch.device("cpu")


class Stub:
    """Says that a face is as many years old as its mean level; ages it by adding target / 100."""

    config = TINY

    def __init__(self) -> None:
        self.encoded = 0

    def age_logits(self, faces, zoom=1.0):
        levels = ((faces.mean((1, 2, 3)) + 1) * 127.5).round().long()
        return 60.0 * torch.nn.functional.one_hot(levels, 101)

    def encode(self, faces):
        assert faces.shape[1:] == (3, TINY.size, TINY.size)
        self.encoded += len(faces)
        return Decomposed(faces, faces, faces)

    def decode(self, encoded, target_age, source_age=None):
        assert source_age is None
        faces = encoded.identity
        residual = (target_age / 100)[:, None, None, None] * torch.ones_like(faces)
        return Change(residual, torch.zeros(len(faces), 2, 4, 4))


class BrightnessJudge:
    """A face is as many years old as its mean level."""

    name, sha256 = "brightness", "ab" * 32

    def ages(self, crops):
        assert crops.shape[1:] == (256, 256, 3)
        return crops.mean((1, 2, 3))


class AngleJudge:
    """Faces are the same person if they are equally bright: a level is a direction."""

    name, sha256 = "angle", "cd" * 32

    def embed(self, crops, landmarks):
        assert landmarks.shape == (len(crops), 5, 2)
        assert np.isfinite(landmarks).all()
        angle = crops.mean((1, 2, 3)) / 255 * np.pi / 2
        return np.stack([np.cos(angle), np.sin(angle)], 1)


class LevelJudge:
    """Pictures are as far from each other as their mean levels, on [0, 1]."""

    name, sha256 = "level", "ef" * 32

    def distances(self, a, b):
        return np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255

    def features(self, crops):
        levels = crops.mean((1, 2, 3)) / 255
        return np.stack([levels, 1 - levels], 1)


def make_dataset(
    folder: Path, levels: list, ages: list, valid: str = "0 0 256 256", landmarks: str = ""
) -> Path:
    """Pictures of one grey level each (or uint8 arrays), 256 px: women and men in turn."""
    folder.mkdir(exist_ok=True)
    with (folder / "faces.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "set", "age", "age_group", "gender", "valid", "landmarks"])
        for i, (level, age) in enumerate(zip(levels, ages, strict=True)):
            solid = np.full((256, 256, 3), level, np.uint8) if isinstance(level, int) else level
            Image.fromarray(solid).save(folder / f"{i}.png")
            known = ["", age] if isinstance(age, str) else [age, ""]
            writer.writerow([f"{i}.png", "test", *known, "FM"[i % 2], valid, landmarks])
    return folder


LANDMARKS = "96 121 160 121 128 158 103 187 153 187"


def open_inputs(folder: Path) -> LabelledInputs:
    """The val set of a folder."""
    return LabelledInputs(open_dataset(folder, "test"))


def stub_system() -> Weights:
    """The stand-in model as a system."""
    return Weights("stub", Path("stub.safetensors"), "12" * 32, Stub(), {}, CPU)  # type: ignore[arg-type]
