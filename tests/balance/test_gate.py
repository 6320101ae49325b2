"""The gate: results whose judged age or identity fails are dropped."""

from typing import Any

import numpy as np
import pytest
from balance_stand_ins import LevelJudge
from stand_ins import AngleEvaluator

from faceage.api import FaceAger
from faceage.balance.gate import ClassifierJudge, Gate
from faceage.faces.alignment import Face
from faceage.inference.torch_backend import TorchBackend

LANDMARKS = np.array([[96, 121], [160, 121], [128, 158], [103, 187], [153, 187.0]])
FACE = Face((0, 0, 256, 256), LANDMARKS, 1.0)


def picture(level: int) -> np.ndarray:
    return np.full((256, 256, 3), level, np.uint8)


def test_results_near_the_target_age_pass() -> None:
    gate = Gate(LevelJudge(), tolerance=5)
    for judged, why in ((65, ""), (75, ""), (64, "age: judged 64, target 70")):
        verdict = gate.check(picture(30), picture(judged), FACE, 70)
        assert (verdict.age, verdict.similarity, verdict.why) == (judged, None, why)


def test_targets_above_the_highest_estimate_are_compared_with_it() -> None:
    class Capped(LevelJudge):
        highest = 80.0

    gate = Gate(Capped(), tolerance=5)
    assert gate.check(picture(30), picture(76), FACE, 95).why == ""
    assert gate.check(picture(30), picture(74), FACE, 95).why == "age: judged 74, target 95"


def test_results_of_another_identity_are_dropped() -> None:
    identity: Any = AngleEvaluator()
    gate = Gate(LevelJudge(), identity, tolerance=100, min_similarity=0.9)
    same = gate.check(picture(30), picture(40), FACE, 70)
    assert same.why == ""
    assert same.similarity == pytest.approx(np.cos(10 / 255 * np.pi / 2), abs=1e-3)
    other = gate.check(picture(30), picture(130), FACE, 70)
    assert other.why == "identity: similarity 0.816, below 0.9"


def test_an_unknown_similarity_does_not_pass() -> None:
    class Unknown(AngleEvaluator):
        def embed(self, crops: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            return np.full((len(crops), 2), np.nan)

    identity: Any = Unknown()
    gate = Gate(LevelJudge(), identity, tolerance=100)
    assert gate.check(picture(30), picture(40), FACE, 70).why.startswith("identity")


def test_the_classifier_judges_like_predict(tiny_model: Any, portrait: np.ndarray) -> None:
    class Finder:
        def search(self, pixels: np.ndarray) -> Any:
            from faceage.faces.detection import SearchResult

            return SearchResult([FACE], 0.6)

    finder: Any = Finder()
    ager = FaceAger(TorchBackend(tiny_model, "ab" * 32), finder)
    judge = ClassifierJudge(ager)
    assert judge.estimate(portrait, FACE) == ager.predict(portrait)[0].age
    assert judge.name == f"classifier {'ab' * 32}"
