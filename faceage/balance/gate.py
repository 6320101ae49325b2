"""The gate: which results are kept, judged by their age and identity."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from faceage.ages import MAX_AGE
from faceage.api import FaceAger, FaceCrops
from faceage.evaluation.common import CROP, Pixels
from faceage.evaluation.evaluators import MAX_ESTIMATE, AgeEvaluator, IdentityEvaluator
from faceage.faces.alignment import Face, apply, crop_face, to_crop


class AgeJudge(Protocol):
    """Estimates the age of a face in a picture.

    Attributes:
        name: with the sha256 of its file, for the options of a run.
        highest: years; it estimates no higher age.
    """

    name: str
    highest: float

    def estimate(self, pixels: Pixels, face: Face) -> float:
        """The age in years of a face in a picture, uint8 (H,W,3) RGB."""
        ...


class ClassifierJudge:
    """The classifier of the weights that also make the pictures."""

    highest: float = MAX_AGE

    def __init__(self, ager: FaceAger) -> None:
        self._ager = ager
        self.name = f"classifier {ager.weights_sha}"

    def estimate(self, pixels: Pixels, face: Face) -> float:
        side = self._ager.backend.classifier_crop
        crops = FaceCrops([(1, face)], crop_face(pixels, face, side)[None])
        return self._ager.predict_crops(crops)[0].age


class EvaluatorJudge:
    """An age evaluator, which was not used in any training."""

    highest: float = MAX_ESTIMATE

    def __init__(self, evaluator: AgeEvaluator) -> None:
        self._evaluator = evaluator
        self.name = f"{evaluator.name} {evaluator.sha256}"

    def estimate(self, pixels: Pixels, face: Face) -> float:
        return float(self._evaluator.ages(crop_face(pixels, face, CROP)[None])[0])


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        age: judged, in years, to two decimals.
        similarity: of the identities before and after, a cosine; None without an evaluator.
        why: the result is to be dropped; "" if it passed.
    """

    age: float
    similarity: float | None
    why: str


@dataclass(frozen=True)
class Gate:
    """Judges results.

    Attributes:
        judge: of the age.
        identity: a face embedder; None does not check the identity.
        tolerance: years; the largest difference of the judged from the target age. A target above
            the judge's highest estimate is compared as if it were that.
        min_similarity: cosine of the embeddings before and after.
    """

    judge: AgeJudge
    identity: IdentityEvaluator | None = None
    tolerance: float = 10.0
    min_similarity: float = 0.3

    def check(self, before: Pixels, after: Pixels, face: Face, target_age: float) -> Verdict:
        """Judge one result, a picture with the face in the same place as before."""
        age = round(self.judge.estimate(after, face), 2)
        similarity = self._compare(before, after, face)
        why = ""
        if abs(age - min(target_age, self.judge.highest)) > self.tolerance:
            why = f"age: judged {age:g}, target {target_age:g}"
        elif similarity is not None and not similarity >= self.min_similarity:
            why = f"identity: similarity {similarity:g}, below {self.min_similarity:g}"
        return Verdict(age, similarity, why)

    def _compare(self, before: Pixels, after: Pixels, face: Face) -> float | None:
        if self.identity is None:
            return None
        crops = np.stack([crop_face(pixels, face, CROP) for pixels in (before, after)])
        landmarks = apply(to_crop(face.landmarks, CROP), face.landmarks)
        # One by one: the last digits of an embedding may depend on the size of the batch.
        a, b = (self.identity.embed(crop[None], landmarks[None])[0] for crop in crops)
        return round(float(a @ b), 3)
