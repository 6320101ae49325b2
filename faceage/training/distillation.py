"""Knowledge distillation: the classifier from the age teacher, the synthesis from a trained model.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

import torch
from torch import Tensor

from faceage.errors import ConfigError
from faceage.models.age_teacher import AgeTeacher
from faceage.models.generator import ENCODER_LAYERS, Change, FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta

# Displacements are small numbers (at most MAX_FLOW half sides): this weight brings them to the
# magnitude of the residual.
FLOW_WEIGHT = 10.0


def initialise_from_teacher(model: FaceAgeModel, teacher: AgeTeacher) -> None:
    """Start encoder and classifier as the teacher, with attention 0.5 everywhere.

    The first layers of the teacher's backbone become the encoder, the others the classifier. The
    attention starts constant (the gains of its batch norms at 0), and the convolution after it has
    twice the teacher's weights, so that the logits are the teacher's.

    Raises:
        ConfigError: the model has another kind of encoder, or no decomposition.
    """
    if model.config.encoder != "mobilenet" or not model.config.decomposition:
        raise ConfigError(
            "An age teacher initialises models with encoder mobilenet and decomposition only.",
            "Use --set model.encoder=mobilenet",
        )
    state = teacher.backbone.state_dict()
    names = model.encoder.state_dict().keys()
    model.encoder.load_state_dict({name: state[name] for name in names})
    layers = model.classifier.get_submodule("layers")
    layers.load_state_dict({name: state[name] for name in layers.state_dict()})
    model.classifier.get_submodule("body").load_state_dict(teacher.body.state_dict())
    model.classifier.get_submodule("head").load_state_dict(teacher.age.state_dict())
    with torch.no_grad():
        layers.get_parameter(f"depthwise{ENCODER_LAYERS + 1}.weight").mul_(2)
        model.decomposition.channel_norm.weight.zero_()
        model.decomposition.spatial_norm.weight.zero_()


@torch.no_grad()
def synthesis_targets(teacher: FaceAgeModel, faces: Tensor, target_age: Tensor) -> Change:
    """The teacher's changes of faces, averaged over each face and its mirror image."""
    index = torch.arange(len(faces), device=faces.device)
    return decode_tta(teacher, encode_tta(teacher, faces), index, target_age)


def synthesis_distillation_loss(
    model: FaceAgeModel, faces: Tensor, target_age: Tensor, targets: Change
) -> dict[str, Tensor]:
    """Differences between the model's and the teacher's changes, as named terms.

    Args:
        faces: N,3,S,S in [-1, 1].
        target_age: (N,) years.
        targets: from `synthesis_targets`.

    Returns:
        L1 of the residual, of the displacement (times `FLOW_WEIGHT`), and of the aged faces.
    """
    change = model.decode(model.encode(faces), target_age)
    aged, expected = apply_change(faces, change), apply_change(faces, targets)
    return {
        "residual": (change.residual.float() - targets.residual.float()).abs().mean(),
        "flow": FLOW_WEIGHT * (change.flow.float() - targets.flow.float()).abs().mean(),
        "aged": (aged - expected).abs().mean(),
    }
