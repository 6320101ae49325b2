"""Test-time augmentation: predictions and changes averaged over several views of each face.

Used by `predict`, `age` and `evaluate` alike. Averaging lowers the error of single views.
"""

import numpy as np
import torch

from faceage.ages import YEARS
from faceage.models.colours import correct_colours
from faceage.models.decoders import Change, Decomposed
from faceage.models.generator import FaceAgeModel

# Zooms of the classifier's input, for each kind of encoder.
TTA_ZOOMS = {"residual": (0.92, 1.0, 1.07, 1.14), "mobilenet": (0.95, 1.05)}
CHUNK = 16  # faces in one batch; bounds the memory
# Faces in one batch of the classifier on a CPU, where larger batches are slower: a face takes 48 ms
# in a batch of 4 and 65 ms in one of 16 on one core (Intel, AMX).
CPU_CHUNK = 4


def encode_tta(model: FaceAgeModel, faces: torch.Tensor) -> Decomposed:  # N,3,S,S -> 2N
    """Faces, followed by their mirror images, encoded for `decode_tta`."""
    return model.encode(torch.cat([faces, faces.flip(3)]))


def decode_tta(
    model: FaceAgeModel,
    views: Decomposed,
    index: torch.Tensor,
    target_age: torch.Tensor,
    source_age: torch.Tensor | None = None,
) -> Change:
    """The changes of some faces, each the mean over the face and its mirror image.

    The mean removes most asymmetric errors, such as a wrinkle on one cheek only.

    Args:
        views: of N faces, from `encode_tta`.
        index: (M,) which of the N faces.
        target_age, source_age: (M,) years, as for `FaceAgeModel.decode`.
    """
    face = model.decode(views.select(index), target_age, source_age)
    mirrored = views.select(index + views.identity.shape[0] // 2)
    mirror = model.decode(mirrored, target_age, source_age)
    flip_x = torch.tensor([-1.0, 1.0], device=index.device)[:, None, None]
    change = Change(
        (face.residual + mirror.residual.flip(3)) / 2,
        (face.flow + mirror.flow.flip(3) * flip_x) / 2,
    )
    return correct_colours(views.faces[index], change, target_age)


@torch.inference_mode()
def predict_distributions(model: FaceAgeModel, faces: torch.Tensor) -> np.ndarray:
    """Distributions over whole years, float64 (N,101), each the mean over the views of a face.

    Args:
        faces: N,3,R,R in [-1, 1] with R = `config.classifier_crop`, on the model's device.
    """
    rows = []
    for part in torch.split(faces, CPU_CHUNK if faces.device.type == "cpu" else CHUNK):
        rows.append(classify_tta(model, part).softmax(2).mean(0).cpu())
    distributions: np.ndarray = torch.cat(rows).double().numpy()
    return distributions


def classify_tta(model: FaceAgeModel, faces: torch.Tensor) -> torch.Tensor:  # N,3,R,R -> V,N,101
    """Logits over whole years of V views: the face and its mirror image, at each of the zooms."""
    both = torch.cat([faces, faces.flip(3)])
    zooms = TTA_ZOOMS[model.config.encoder]
    logits = model.age_logits(both, *zooms)
    return logits.float().reshape(-1, faces.shape[0], YEARS)  # `len` would fix N in an export
