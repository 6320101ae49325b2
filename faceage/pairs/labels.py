"""Labels of rendered faces: age, gender, identity, pose, glasses; and which faces are kept."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from faceage import hub
from faceage.checkpoints import load_weights, read_tensors
from faceage.distributions import summarize_distribution
from faceage.faces.alignment import crop_quad
from faceage.faces.detection import make_detector
from faceage.faces.parsing import GLASSES, HAT, MOUTH, FaceParser
from faceage.imaging.conversion import to_tensor
from faceage.imaging.skin import skin_colours
from faceage.models.age_teacher import AgeTeacher, estimate
from faceage.models.identity import GENDER_AGE, IdentityEmbedder, fit_age_part, remove_age_part
from faceage.models.tta import predict_distributions

# A face is dropped where it leaves the person's reference face by more than this.
MIN_SIMILARITY = -0.1  # cosine of centred embeddings; 0 on average for different people
MAX_GENDER_CHANGE = 0.6  # in the probability of "male"
MAX_YAW_CHANGE = 0.12  # of the nose, in eye distances
MAX_GLASSES_CHANGE = 0.004  # of the picture's area
MAX_MISALIGNMENT = 0.12  # of a corner of the FFHQ crop, in fractions of its side
MIN_SCORE = 0.8  # of the detector; below it the face is mostly distorted
# Years that a step of 1 must change the age by, towards youth and towards old age. Below, the step
# distorts the face instead.
MIN_SLOPE = (0.5, 1.5)
MIN_STEP = 0.3  # smaller steps are not judged: the age's error is larger than their effect


@dataclass(frozen=True, eq=False)
class FaceLabels:
    """Labels of N faces; NaN where no model was given that measures them, or no face was found.

    Attributes:
        age: (N,) years.
        male: (N,) probability.
        yaw: (N,) offset of the nose from between the eyes, in eye distances.
        misalignment: (N,) largest distance of a corner of the face's FFHQ crop from the picture's
            corner, in fractions of its side.
        skin: (N,3) RGB levels.
        glasses, hat, mouth: (N,) areas in fractions of the picture.
        score: (N,) of the face detector, from 0 to 1; 0 where no face was found.
        embedding: (N,D) of the identity; D is 0 without an embedder.
    """

    age: NDArray[np.float64]
    male: NDArray[np.float64]
    yaw: NDArray[np.float64]
    misalignment: NDArray[np.float64]
    skin: NDArray[np.float64]
    glasses: NDArray[np.float64]
    hat: NDArray[np.float64]
    mouth: NDArray[np.float64]
    score: NDArray[np.float64]
    embedding: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.age)

    @classmethod
    def concatenate(cls, parts: Sequence["FaceLabels"]) -> "FaceLabels":
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def held_attributes(self) -> NDArray[np.float64]:
        """(N,K) what shall not change with age: everything measured but age and identity.

        A face without a measurement gets the mean.
        """
        columns = [self.male, self.yaw, *self.skin.T, self.glasses, self.hat, self.mouth]
        known = [column for column in columns if np.isfinite(column).any()]
        table = np.column_stack(known)
        return np.where(np.isfinite(table), table, np.nanmean(table, 0))


class FaceLabeller:
    """Measures faces with the models that are given.

    Args:
        teacher: the age teacher; without it ages are the packaged classifier's, and genders are
            unknown.
        embedder: .safetensors file of a MobileNetV1 trained on identities.
        parser: the face parser.

    Raises:
        WeightsError: a file is missing, damaged, or of another network.
    """

    def __init__(
        self,
        teacher: AgeTeacher | None = None,
        embedder: Path | None = None,
        parser: FaceParser | None = None,
    ) -> None:
        self._teacher, self._parser = teacher, parser
        self._classifier = None if teacher else load_weights(hub.find())[0]
        self._embedder: IdentityEmbedder | None = None
        if embedder:
            self._embedder = IdentityEmbedder(read_tensors(embedder))
        self._detector = make_detector("yunet")

    def label(self, images: NDArray[np.uint8]) -> FaceLabels:
        """Labels of FFHQ crops, (N,S,S,3) RGB."""
        tensor = torch.from_numpy(images)
        age, male = self.predict_ages(images)
        yaw, misalignment, score = np.transpose([self._pose(image) for image in images])
        areas = np.full((3, len(images)), np.nan)
        if self._parser:
            parsed = np.stack([self._parser.parse(image) for image in images])
            areas = np.array([(parsed == c).mean((1, 2)) for c in (GLASSES, HAT, MOUTH)])
        return FaceLabels(
            age=age,
            male=male,
            yaw=yaw,
            misalignment=misalignment,
            skin=skin_colours(images),
            glasses=areas[0],
            hat=areas[1],
            mouth=areas[2],
            score=score,
            embedding=self._embed(tensor),
        )

    @torch.inference_mode()
    def predict_ages(
        self, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Ages and probabilities of "male", (N,) each, of FFHQ crops, (N,S,S,3) RGB."""
        faces = torch.from_numpy(images)
        if self._teacher:
            with torch.autocast("cpu", torch.bfloat16):
                years, male = estimate(self._teacher, faces)
            distributions = years.double().numpy()
            genders = male.double().numpy()
        else:
            assert self._classifier is not None
            side = self._classifier.config.classifier_crop
            inputs = torch.nn.functional.interpolate(
                to_tensor(faces), side, mode="bilinear", antialias=True, align_corners=False
            )
            distributions = predict_distributions(self._classifier, inputs)
            genders = np.full(len(images), np.nan)
        return np.array([summarize_distribution(row)[0] for row in distributions]), genders

    def _pose(self, image: NDArray[np.uint8]) -> tuple[float, float, float]:
        """Yaw, misalignment and score; NaN, NaN and 0 where no face is found."""
        found = self._detector.detect(image)
        if not found:
            return np.nan, np.nan, 0.0
        points = found[0].landmarks
        eyes = points[:2].mean(0)
        across = points[1] - points[0]
        yaw = float((points[2] - eyes) @ across / (across @ across))
        side = len(image)
        corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) - 0.5
        distance = np.linalg.norm(crop_quad(points) - corners, axis=1).max() / side
        return yaw, float(distance), found[0].score

    @torch.inference_mode()
    def _embed(self, images: torch.Tensor) -> NDArray[np.float64]:
        if self._embedder is None:
            return np.zeros((len(images), 0))
        with torch.autocast("cpu", torch.bfloat16):
            embeddings = self._embedder(to_tensor(images))
        return np.asarray(embeddings.numpy(), np.float64)


def fit_age_embedding(labels: FaceLabels) -> NDArray[np.float64]:
    """The mean embedding by age, see `fit_age_part`: coefficients (3,D)."""
    ages = torch.from_numpy(labels.age)
    return fit_age_part(torch.from_numpy(labels.embedding), ages).numpy()


def similarity_to(
    labels: FaceLabels, reference: int, age_embedding: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Cosine similarity of each face's embedding to the reference's, (N,), without the part of age.

    NaN without an embedder.

    Args:
        age_embedding: from `fit_age_embedding`.
    """
    if not labels.embedding.shape[1]:
        return np.full(len(labels), np.nan)
    centred = remove_age_part(
        torch.from_numpy(labels.embedding),
        torch.from_numpy(labels.age),
        torch.from_numpy(age_embedding),
    )
    return (centred @ centred[reference]).numpy()


def find_saturated(
    age: NDArray[np.float64], step: NDArray[np.float64], reference: int
) -> NDArray[np.bool_]:  # (N,) twice -> (N,)
    """Faces of one person, ordered by step, that look no older or younger than milder ones.

    Each is compared with the next face towards the reference that is not saturated.

    Args:
        age: years.
        step: in the direction of age.
        reference: the index of the least changed face.
    """
    saturated = np.zeros(len(age), bool)
    younger, older = range(reference - 1, -1, -1), range(reference + 1, len(age))
    for side, sign, indices in ((0, -1, younger), (1, 1, older)):
        last = reference
        for index in indices:
            distance = abs(step[index] - step[last])
            slope = sign * (age[index] - age[last]) / max(distance, MIN_STEP)
            saturated[index] = distance > MIN_STEP and slope < MIN_SLOPE[side]
            if not saturated[index]:
                last = index
    return saturated


def reasons_to_drop(
    labels: FaceLabels,
    reference: int,
    similarity: NDArray[np.float64],
    step: NDArray[np.float64],
) -> list[str]:
    """Why each face of one person is dropped; "" where it is kept.

    Args:
        labels: of all the person's faces, ordered by step.
        reference: the index of the face that the others are compared with.
        similarity: (N,) to the reference, from `similarity_to`.
        step: (N,) in the direction of age.
    """

    def change(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.abs(values - values[reference]), np.float64)

    old_enough = np.minimum(labels.age, labels.age[reference]) >= GENDER_AGE
    checks = {  # comparisons with NaN are false: what was not measured drops nothing
        "no face": labels.score < MIN_SCORE,
        "misaligned": labels.misalignment > MAX_MISALIGNMENT,
        "pose": change(labels.yaw) > MAX_YAW_CHANGE,
        "identity": similarity < MIN_SIMILARITY,
        "gender": old_enough & (change(labels.male) > MAX_GENDER_CHANGE),
        "glasses": change(labels.glasses) > MAX_GLASSES_CHANGE,
        "saturated": find_saturated(labels.age, step, reference),
    }
    return [
        next((name for name, failed in checks.items() if failed[index]), "")
        for index in range(len(labels))
    ]
