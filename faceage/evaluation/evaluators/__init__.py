"""Judges: independent networks that measure results. A judge never trains.

What a model was trained to please cannot tell how good it is; so nothing that the training
imports may import this package (a test asserts it), and a judge's file is given by its path.
"""

from faceage.evaluation.evaluators.age import CROP, AgeJudge, OnnxAgeJudge
from faceage.evaluation.evaluators.identity import (
    ArcFaceIdentityJudge,
    IdentityJudge,
    OnnxIdentityJudge,
    open_identity_judge,
)
from faceage.evaluation.evaluators.perceptual import LpipsJudge, PerceptualJudge

__all__ = [
    "CROP",
    "AgeJudge",
    "ArcFaceIdentityJudge",
    "IdentityJudge",
    "LpipsJudge",
    "OnnxAgeJudge",
    "OnnxIdentityJudge",
    "PerceptualJudge",
    "open_identity_judge",
]
