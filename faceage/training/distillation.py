"""Knowledge distillation: the classifier from the age teacher, the synthesis from a trained model.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from faceage.ages import YEARS
from faceage.checkpoints import load_weights
from faceage.data import augmentation
from faceage.distributed import Processes
from faceage.errors import ConfigError
from faceage.imaging.conversion import to_tensor
from faceage.models.age_teacher import AgeTeacher, estimate
from faceage.models.generator import ENCODER_LAYERS, Change, FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta
from faceage.training.calibration import calibrate_interval
from faceage.training.config import TrainConfig
from faceage.training.losses import Terms, age_losses
from faceage.training.teacher import augmented_windows, down_weight_labels, load_teacher
from faceage.training.trainer import MAX_TARGET_AGE, Trainer

# Factors on the learning rate: the pretrained layers of the classifier change least. The encoder is
# frozen.
CLASSIFIER_LR, ATTENTION_LR = 0.1, 2.0
DECODER_LR = 0.3  # the decoder starts as the old one; only the projection before it is new
SELF_TARGETS = 0.1  # fraction of faces whose target is their own age

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


class DistillationTrainer(Trainer):
    """The training loop with both phases distilled.

    The warm-up trains the attention and fine-tunes the classifier, starting as the age teacher, on
    the labels and on the teacher's age distributions. The encoder keeps its pretrained weights, so
    that another classifier does not change the features of the synthesis. The synthesis learns the
    changes of a trained model.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        assert config.teacher is not None
        assert config.distill_from is not None
        self.age_teacher = load_teacher(config.teacher)
        self.synthesis_teacher = load_weights(config.distill_from)[0]
        super().__init__(config, processes)
        self.synthesis_teacher = self._to_device(self.synthesis_teacher)
        self.age_teacher.to(self.device)
        self.soft_labels = Tensor()
        if self.images_seen < config.warmup_images:
            with self._autocast():
                self.soft_labels, _ = estimate(
                    self.age_teacher,
                    self.faces.images,
                    self.faces.valid,
                    zooms=(1.0,),
                    mirrors=(1.0,),
                )
        self.label_weights = down_weight_labels(self.dataset, self.faces, self.soft_labels)

    def initialise(self, model: FaceAgeModel) -> None:
        """Start as the age teacher and as the decoder of the model that is distilled."""
        initialise_from_teacher(model, self.age_teacher)
        for name in ("decoder", "age_feature_cnn"):
            new, old = getattr(model, name), getattr(self.synthesis_teacher, name)
            try:
                new.load_state_dict(old.state_dict())
            except RuntimeError:
                raise ConfigError(
                    f"{self.config.distill_from} has another decoder than the options give.",
                    "Set model.size, model.width and model.decoder_blocks to its own.",
                ) from None

    def make_optimisers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """One learning rate for each part."""
        config, model = self.config, self.model
        model.encoder.requires_grad_(False)
        layers = model.classifier.get_submodule("layers")
        heads = [model.classifier.get_submodule(name) for name in ("body", "head")]
        warmup = torch.optim.AdamW(
            [
                _group(CLASSIFIER_LR, layers),
                _group(1.0, *heads),
                _group(ATTENTION_LR, model.decomposition),
            ],
            lr=config.lr_warmup,
            weight_decay=config.weight_decay,
        )
        synthesis = torch.optim.Adam(
            [
                _group(1.0, model.identity_projection),
                _group(DECODER_LR, model.decoder, model.age_feature_cnn),
            ],
            lr=config.lr,
            betas=(0.9, 0.99),
        )
        return warmup, synthesis

    def _classify(self, model: FaceAgeModel, index: Tensor) -> Tensor:
        """Age loss on the labels plus cross-entropy with the teacher's distributions."""
        faces = self.faces
        windows = augmented_windows(
            faces.images[index], faces.valid[index], self.config.model.classifier_size
        )
        with self._autocast():
            logits = model.classify(self._to_device(windows)).float()
        log_p = logits.log_softmax(1)
        losses = age_losses(logits, faces.ages[index], faces.groups[index], faces.exact[index])
        years = torch.arange(YEARS, device=logits.device, dtype=torch.float32)
        distance = (log_p.exp() @ years - faces.ages[index]).abs()
        losses = losses + 0.05 * distance * faces.exact[index]
        weights = self.label_weights[index]
        loss = (weights * losses).sum() / weights.sum()
        if len(self.soft_labels):
            loss = loss - (self.soft_labels[index] * log_p).sum(1).mean()
        return loss

    def _recalibrated(self) -> FaceAgeModel:
        """At the end of the run, the intervals are calibrated on the val set, too."""
        model = super()._recalibrated()
        if self.images_seen >= self.config.images:
            known = self.val.exact
            faces = to_tensor(self.val.images[known])
            temperature = calibrate_interval(model, faces, self.val.ages[known])
            self.progress.record(self.images_seen, {"temperature": temperature})
        return model

    def _step(self) -> Terms:
        config = self.config
        learned = [self.model.identity_projection, self.model.decoder, self.model.age_feature_cnn]
        self.model.eval().requires_grad_(False)
        for part in learned:
            part.train().requires_grad_(True)
        seen = self.images_seen - config.warmup_images
        length = config.images - config.warmup_images
        rise = min(1.0, (seen + config.batch_size) / 2000)
        fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * seen / length))
        for group in self.optimiser.param_groups:
            group["lr"] = config.lr * rise * fall * group["factor"]
        index = self._draw(self.sampler, seen, config.batch_size // self.processes.count)
        faces, _ = augmentation.whole_faces(
            self.faces.images[index], self.faces.valid[index], config.model.size
        )
        faces = self._to_device(faces)
        target_age = MAX_TARGET_AGE * torch.rand(len(index), device=self.device) ** 1.2
        own = torch.rand(len(index), device=self.device) < SELF_TARGETS
        target_age = torch.where(own, self.faces.ages[index].clamp(max=MAX_TARGET_AGE), target_age)
        with self._autocast():
            targets = synthesis_targets(self.synthesis_teacher, faces, target_age)
            terms = synthesis_distillation_loss(self.model, faces, target_age, targets)
        self._update(self.optimiser, torch.stack(list(terms.values())).sum())
        return {f"G/{name}": value.detach() for name, value in terms.items()}


def _group(factor: float, *parts: nn.Module) -> dict[str, Any]:
    return {"params": [p for part in parts for p in part.parameters()], "factor": factor}
