"""The evaluators' real files on real faces, where the environment says where they are.

`FACEAGE_TEST_EVALUATORS` is a folder with age-v1.onnx, mobilefacenet.onnx and
alexnet_features_fp16.safetensors; `FACEAGE_TEST_DATA` a dataset with faces.csv and val.zip.
"""

import csv
import io
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from faceage.evaluation.evaluators import AgeEvaluator, IdentityEvaluator, PerceptualEvaluator
from faceage.evaluation.metrics import kernel_distance, top1_retrieval

pytestmark = pytest.mark.skipif(
    not {"FACEAGE_TEST_EVALUATORS", "FACEAGE_TEST_DATA"} <= os.environ.keys(),
    reason="FACEAGE_TEST_EVALUATORS and FACEAGE_TEST_DATA are not set",
)
FILES = Path(os.environ.get("FACEAGE_TEST_EVALUATORS", ""))


class Faces(NamedTuple):
    crops: np.ndarray  # N,256,256,3 uint8
    landmarks: np.ndarray  # N,5,2 px
    ages: np.ndarray  # (N,) years


@pytest.fixture(scope="module")
def faces() -> Faces:
    """A hundred each of the young and the old, and as many of those between."""
    folder = Path(os.environ["FACEAGE_TEST_DATA"])
    with (folder / "faces.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["zip"] == "val.zip"]
    years = np.array([float(row["age"]) for row in rows])
    random = np.random.default_rng(0)
    parts = [years < 15, (years >= 20) & (years < 40), years >= 50]
    chosen = np.concatenate([random.choice(np.flatnonzero(p), 100, replace=False) for p in parts])
    with zipfile.ZipFile(folder / "val.zip") as archive:
        files = [io.BytesIO(archive.read(rows[i]["file"])) for i in chosen]
    crops = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    points = [np.array(rows[i]["landmarks"].split(), float).reshape(5, 2) for i in chosen]
    return Faces(crops, np.stack(points), years[chosen])


def test_ages(faces: Faces) -> None:
    ages = AgeEvaluator(FILES / "age-v1.onnx").ages(faces.crops)
    assert np.abs(ages - faces.ages).mean() < 8
    assert np.corrcoef(ages, faces.ages)[0, 1] > 0.9


def test_a_mirrored_face_is_still_the_same_person(faces: Faces) -> None:
    evaluator = IdentityEvaluator(FILES / "mobilefacenet.onnx")
    gallery = evaluator.embed(faces.crops, faces.landmarks)
    mirrored = faces.landmarks[:, [1, 0, 2, 4, 3]] * [-1, 1] + [255, 0]
    queries = evaluator.embed(np.ascontiguousarray(faces.crops[:, :, ::-1]), mirrored)
    assert top1_retrieval(queries, gallery, np.arange(len(gallery))).mean() > 0.97
    alike = queries @ gallery.T
    assert np.diag(alike).mean() > 0.9
    assert alike[~np.eye(len(alike), dtype=bool)].mean() < 0.15


def test_perceptual_distances(faces: Faces) -> None:
    evaluator = PerceptualEvaluator(FILES / "alexnet_features_fp16.safetensors")
    some = faces.crops[:8]
    noise = np.random.default_rng(0).normal(0, 4, some.shape)
    noisy = np.clip(some + noise, 0, 255).astype(np.uint8)
    same, close, far = (evaluator.distances(some, x) for x in (some, noisy, some[::-1].copy()))
    assert (same == 0).all()
    assert (close > 0).all()
    assert close.mean() < 0.2 < 0.3 < far.mean() < 0.9


def test_the_young_are_far_from_the_old(faces: Faces) -> None:
    evaluator = PerceptualEvaluator(FILES / "alexnet_features_fp16.safetensors")
    features = evaluator.features(faces.crops)
    young, old = features[faces.ages < 15], features[faces.ages >= 50]
    apart = kernel_distance(young, old)
    for group in (young, old):
        assert abs(kernel_distance(group[::2], group[1::2])) < apart / 5
