"""Stand-ins with results that can be computed by hand: a model, evaluators, grey pictures."""

import csv
from pathlib import Path

import numpy as np
import torch
from conftest import TINY
from PIL import Image

from faceage.data.datasets import open_dataset
from faceage.evaluation.common import Inputs
from faceage.evaluation.methods import WeightsMethod
from faceage.evaluation.results import MethodInfo
from faceage.models.decoders import Change, Decomposed

CPU = torch.device("cpu")


class Stub:
    """Predicts the mean level of a face as its age; ages it by adding target / 100."""

    config = TINY

    def __init__(self) -> None:
        self.encoded = 0

    def age_logits(self, faces, *zooms):
        levels = ((faces.mean((1, 2, 3)) + 1) * 127.5).round().long()
        return 60.0 * torch.nn.functional.one_hot(levels, 101)

    def encode(self, faces):
        assert faces.shape[1:] == (3, TINY.size, TINY.size)
        self.encoded += len(faces)
        return Decomposed(faces, faces, faces[:, :0], faces)

    def decode(self, encoded, target_age, source_age=None):
        assert source_age is None
        faces = encoded.identity
        residual = (target_age / 100)[:, None, None, None] * torch.ones_like(faces)
        return Change(residual, torch.zeros(len(faces), 2, 4, 4))


class BrightnessEvaluator:
    """The age of a face is its mean level."""

    name, sha256 = "brightness", "ab" * 32

    def ages(self, crops):
        assert crops.shape[1:] == (256, 256, 3)
        return crops.mean((1, 2, 3))


class AngleEvaluator:
    """Faces are the same person if they are equally bright: a level is a direction."""

    name, sha256 = "angle", "cd" * 32

    def embed(self, crops, landmarks):
        assert landmarks.shape == (len(crops), 5, 2)
        angle = crops.mean((1, 2, 3)) / 255 * np.pi / 2
        known = np.isfinite(landmarks).all((1, 2))[:, None]
        return np.where(known, np.stack([np.cos(angle), np.sin(angle)], 1), np.nan)


class LevelEvaluator:
    """The distance of pictures is that of their mean levels, on [0, 1]."""

    name, sha256 = "level", "ef" * 32

    def distances(self, a, b):
        return np.abs(a.astype(float) - b).mean((1, 2, 3)) / 255

    def features(self, crops):
        levels = crops.mean((1, 2, 3)) / 255
        return np.stack([levels, 1 - levels], 1)

    def crop_features(self, crops):
        return self.features(crops) * 2


class MeanEvaluator:
    """Features that are the mean colours."""

    name, sha256 = "mean", "01" * 32

    def features(self, crops):
        return crops.mean((1, 2)) / 255


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


def open_inputs(folder: Path) -> Inputs:
    """The test split of a folder."""
    return Inputs(open_dataset(folder, "test"))


def stub_method() -> WeightsMethod:
    """The stand-in model as a method."""
    info = MethodInfo("stub", "weights", "stub.safetensors", "12" * 32)
    return WeightsMethod(info, Stub(), CPU)  # type: ignore[arg-type]
