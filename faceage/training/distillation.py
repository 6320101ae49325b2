"""Knowledge distillation: the classifier from the age teacher, the synthesis from a trained model.

Hinton et al., "Distilling the Knowledge in a Neural Network", 2015 (arXiv 1503.02531).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from faceage.checkpoints import load_weights
from faceage.data.augmentation import whole_faces
from faceage.errors import ConfigError
from faceage.imaging.conversion import to_tensor
from faceage.models.age_teacher import AgeTeacher, estimate
from faceage.models.decoders import Change
from faceage.models.encoders import ENCODER_LAYERS
from faceage.models.generator import FaceAgeModel, apply_change
from faceage.models.tta import decode_tta, encode_tta
from faceage.models.vgg import VggFeatures
from faceage.training.batches import MAX_TARGET_AGE, StepPlan
from faceage.training.calibration import calibrate_interval
from faceage.training.config import TrainConfig
from faceage.training.losses import Terms
from faceage.training.networks import Networks
from faceage.training.provenance import describe_weights
from faceage.training.teacher import (
    augmented_windows,
    down_weight_labels,
    load_teacher,
    teacher_age_loss,
)
from faceage.training.trainer import Trainer

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


class DistillationNetworks(Networks):
    """Networks that start as the age teacher and as the decoder of the model that is distilled."""

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        vgg: VggFeatures | None = None,
        synchronise: bool = False,
    ) -> None:
        assert config.teacher is not None
        assert config.distill_from is not None
        age_teacher = load_teacher(config.teacher)
        synthesis_teacher, metadata = load_weights(config.distill_from)
        self.age_teacher, self.synthesis_teacher = age_teacher, synthesis_teacher
        self.sources = {
            "teacher": describe_weights(config.teacher, {}),
            "distill_from": describe_weights(config.distill_from, metadata),
        }
        super().__init__(config, device, vgg, synchronise)
        self.age_teacher.to(device)
        self.synthesis_teacher = self.to_device(synthesis_teacher)

    def _initialise(self, model: FaceAgeModel) -> None:
        initialise_from_teacher(model, self.age_teacher)
        for name in ("decoder", "age_feature_cnn"):
            new, old = getattr(model, name), getattr(self.synthesis_teacher, name)
            try:
                new.load_state_dict(old.state_dict())
            except RuntimeError:
                raise ConfigError(
                    "The weights that distill_from names have another decoder than the options.",
                    "Set model.size, model.width and model.decoder_blocks to theirs.",
                ) from None

    def _make_optimisers(
        self, config: TrainConfig
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """One learning rate for each part; the encoder is frozen."""
        model = self.model
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


class DistillationTrainer(Trainer):
    """The training loop with both phases distilled.

    The warm-up trains the attention and fine-tunes the classifier, starting as the age teacher, on
    the labels and on the teacher's age distributions. The encoder keeps its pretrained weights, so
    that another classifier does not change the features of the synthesis. The synthesis learns the
    changes of a trained model.
    """

    networks: DistillationNetworks

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.soft_labels = torch.empty(0)
        if self.state.images_seen < self.config.warmup_images:
            self.soft_labels = self._estimate_ages()
        labels = self.data.train.labels
        self.label_weights = down_weight_labels(self.data.dataset, labels, self.soft_labels)

    def _estimate_ages(self) -> Tensor:
        """The age teacher's distributions for the train set, N,101."""
        indices = torch.split(torch.arange(len(self.data.train)), 256)
        distributions = []
        for index, images in zip(indices, self.data.train.batches(indices), strict=True):
            valid = self._labels(index).valid
            with self._autocast():
                ages, _ = estimate(
                    self.networks.age_teacher,
                    images,
                    valid,
                    zooms=(1.0,),
                    mirrors=(1.0,),
                )
            distributions.append(ages.cpu())
        return torch.cat(distributions)

    def _age_loss(self, model: FaceAgeModel, images: Tensor, index: Tensor) -> Tensor:
        """Age loss on the labels plus cross-entropy with the teacher's distributions."""
        labels = self._labels(index)
        windows = augmented_windows(images, labels.valid, self.config.model.classifier_size)
        with self._autocast():
            logits = model.classify(self.networks.to_device(windows)).float()
        losses = teacher_age_loss(logits, labels.ages, labels.groups, labels.exact)
        weights = self.label_weights[index].to(self.device)
        loss = (weights * losses).sum() / weights.sum()
        if len(self.soft_labels):
            soft_labels = self.soft_labels[index].to(self.device)
            loss = loss - (soft_labels * logits.log_softmax(1)).sum(1).mean()
        return loss

    def _recalibrated(self) -> FaceAgeModel:
        """At the end of the run, the intervals are calibrated on the val set, too."""
        model = super()._recalibrated()
        if self.state.images_seen >= self.config.images:
            val = self.data.val
            known = val.labels.exact.nonzero()[:, 0]
            if not len(known):
                return model
            (images,) = val.batches([known])
            faces = to_tensor(images, self.device)
            temperature = calibrate_interval(model, faces, val.labels.ages[known])
            self.progress.record(self.state.images_seen, {"temperature": temperature})
        return model

    def _synthesis_step(self, plan: StepPlan, images: Tensor) -> Terms:
        config, networks = self.config, self.networks
        model, labels = networks.model, self._labels(plan.index)
        learned = [model.identity_projection, model.decoder, model.age_feature_cnn]
        model.eval().requires_grad_(False)
        for part in learned:
            part.train().requires_grad_(True)
        seen = plan.images_seen - config.warmup_images
        length = config.images - config.warmup_images
        rise = min(1.0, (seen + config.batch_size) / 2000)
        fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * seen / length))
        for group in networks.optimiser.param_groups:
            group["lr"] = config.lr * rise * fall * group["factor"]
        faces, _ = whole_faces(images, labels.valid, config.model.size)
        faces = networks.to_device(faces)
        target_age = MAX_TARGET_AGE * torch.rand(len(images), device=self.device) ** 1.2
        own = torch.rand(len(images), device=self.device) < SELF_TARGETS
        target_age = torch.where(own, labels.ages.clamp(max=MAX_TARGET_AGE), target_age)
        with self._autocast():
            targets = synthesis_targets(networks.synthesis_teacher, faces, target_age)
            terms = synthesis_distillation_loss(model, faces, target_age, targets)
        if not self._update(networks.optimiser, torch.stack(list(terms.values())).sum()):
            return {}
        return {f"G/{name}": value.detach() for name, value in terms.items()}

    def _sources(self) -> dict[str, dict[str, str]]:
        return super()._sources() | self.networks.sources


def _group(factor: float, *parts: nn.Module) -> dict[str, Any]:
    return {"params": [p for part in parts for p in part.parameters()], "factor": factor}
