"""Training the age teacher: fine-tune a face recognition backbone on ages and genders.

Layer-wise learning rates, strong degradation of the pictures, label distributions, and noisy
labels down-weighted by agreement. One process; the same command resumes.
"""

import copy
import json
import math
import time
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from faceage.ages import GROUP_NAMES, YEARS
from faceage.checkpoints import load_state, read_tensors, save_state
from faceage.data.augmentation import erase, random_similarity, recolour
from faceage.data.datasets import Dataset, DecodedDataset, Labels, decode, open_dataset
from faceage.data.degradation import degrade
from faceage.data.sampling import InfiniteSampler, draw_weights
from faceage.devices import pick_device
from faceage.distributions import nearest_group, summarize_distribution
from faceage.errors import ConfigError, WeightsError
from faceage.files import replace_file
from faceage.models.age_teacher import (
    TEACHER_SIZE,
    WINDOW,
    AgeTeacher,
    TeacherOutput,
    crop_windows,
    estimate,
)
from faceage.models.encoders import ENCODER_LAYERS
from faceage.models.mobilenet import LAYERS
from faceage.models.windows import window_grid
from faceage.training.logging import Progress
from faceage.training.losses import age_losses
from faceage.training.state import check_options

FORMAT = "faceage-teacher-1"
# Options that a resumed run may change. The learning rates depend on `images`.
CHANGEABLE = ("data", "backbone", "out", "save_minutes")
CROP_SIZE = 256  # px of the crops in memory
CLEAN_AT = 0.5  # of the training
ESTIMATED_LABEL_WEIGHT = 0.6  # of samples whose label is itself an estimate
HEADS_ONLY = 10_000  # images: the heads start at random, and their gradients with them
DEGRADED = 0.5  # fraction of the pictures


@dataclass(frozen=True)
class TeacherConfig:
    """Options of the teacher's training.

    Attributes:
        data: dataset name or folder.
        backbone: .safetensors file of MobileNetV1 (`conv1.weight`, `depthwise1.weight`, ...).
        out: run directory.
        images: length of the training, in images seen.
        lr: AdamW's learning rate of the heads.
        backbone_lr: factor on `lr` for the last layers of the backbone; every two layers before
            them have `layer_decay` of that. The layers that become the encoder are frozen.
        gender_weight: of the gender loss.
        seed: of everything random.
    """

    data: str
    backbone: Path
    out: Path
    images: int = 60_000
    batch_size: int = 48
    lr: float = 1e-3
    backbone_lr: float = 0.05
    layer_decay: float = 0.8
    weight_decay: float = 0.02
    gender_weight: float = 0.3
    ema_images: int = 6_000
    seed: int = 0
    save_minutes: float = 8.0


def load_backbone(teacher: AgeTeacher, path: str | Path) -> None:
    """Load the pretrained convolutions into a teacher.

    Raises:
        WeightsError: missing, damaged, or of another network.
    """
    try:
        teacher.backbone.load_state_dict(read_tensors(path))
    except RuntimeError:
        raise WeightsError(
            f"{path} does not hold MobileNetV1 (conv1, depthwise1-13, pointwise1-13).",
            "Give a face recognition MobileNetV1 whose batch norms are folded.",
        ) from None


def load_teacher(path: str | Path) -> AgeTeacher:
    """A trained teacher, in eval mode.

    Raises:
        WeightsError: missing, damaged, or of another network.
    """
    teacher = AgeTeacher()
    try:
        teacher.load_state_dict(read_tensors(path))
    except RuntimeError:
        raise WeightsError(
            f"{path} is not an age teacher.", "Train one with: faceage train-teacher"
        ) from None
    return teacher.eval().requires_grad_(False).to(memory_format=torch.channels_last)


class TeacherTrainer:
    """The teacher, its optimiser and data, and the training loop.

    Args:
        device: a name as in `pick_device`. The decoded pictures stay in the computer's memory.

    Raises:
        ConfigError: options out of range, no such device, or the run directory has the state of a
            run with other options.
    """

    def __init__(self, config: TeacherConfig, device: str = "auto") -> None:
        if config.images < 1 or config.batch_size < 1:
            raise ConfigError("images and batch_size must be at least 1.")
        self.config = config
        self.device = pick_device(device)
        self.images_seen = 0
        self.cleaned = False
        torch.manual_seed(config.seed)
        self.teacher = AgeTeacher().to(memory_format=torch.channels_last)
        load_backbone(self.teacher, config.backbone)
        self.teacher.to(self.device)
        self.ema = copy.deepcopy(self.teacher).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self._parameter_groups(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.progress = Progress(config.images, config.out)
        self.dataset = open_dataset(config.data, "train")
        self.faces = self._decode(self.dataset)
        self.male = self.dataset.male
        self.label_weights = down_weight_labels(self.dataset, self.faces.labels)
        self.val_dataset = open_dataset(config.data, "val")
        self.val = self._decode(self.val_dataset)
        self.sampler = InfiniteSampler(draw_weights(self.faces.labels, 0.5), config.seed)
        self._load_state()

    def run(self) -> Path:
        """Train until `config.images` have been seen; returns the weights file."""
        config = self.config
        saved = time.monotonic()
        with self.progress:
            while self.images_seen < config.images:
                torch.manual_seed(config.seed * 1_000_003 + self.images_seen)
                terms = self._step()
                self.images_seen += config.batch_size
                self.progress.update(self.images_seen, terms)
                if not self.cleaned and self.images_seen >= CLEAN_AT * config.images:
                    self._down_weight_noisy_labels()
                if time.monotonic() - saved > 60 * config.save_minutes:
                    self._save()
                    saved = time.monotonic()
            return self._save()

    def _step(self) -> dict[str, Tensor]:
        config = self.config
        self._set_learning_rates()
        self.teacher.train()
        index = self.sampler.batch(self.images_seen, config.batch_size)
        labels = self.faces.labels[index].to(self.device)
        images = self.faces.images[index].to(self.device)
        windows = augmented_windows(images, labels.valid, TEACHER_SIZE)
        with self._autocast():
            output = self.teacher(windows.contiguous(memory_format=torch.channels_last))
        age = teacher_age_loss(output.age_logits, labels.ages, labels.groups, labels.exact)
        weights = self.label_weights[index].to(self.device)
        terms = {
            "age": (weights * age).sum() / weights.sum(),
            "gender": gender_loss(output, self.male[index].to(self.device)),
        }
        loss = terms["age"] + config.gender_weight * terms["gender"]
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.teacher.parameters(), 5.0)
        self.optimiser.step()
        half_life = min(config.ema_images, (self.images_seen + config.batch_size) / 4 + 1)
        decay = 0.5 ** (config.batch_size / half_life)
        with torch.no_grad():
            pairs = zip(self.ema.parameters(), self.teacher.parameters(), strict=True)
            for average, value in pairs:
                average.lerp_(value, 1 - decay)
        return {name: value.detach() for name, value in terms.items()}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        config, backbone = self.config, self.teacher.backbone
        backbone.requires_grad_(False)
        layers = range(ENCODER_LAYERS + 1, LAYERS + 1)
        names = [f"{kind}{n}" for n in layers for kind in ("depthwise", "pointwise")]
        groups: list[dict[str, Any]] = []
        for depth, name in enumerate(reversed(names)):
            factor = config.backbone_lr * config.layer_decay ** (depth // 4)
            parameters = list(backbone.get_submodule(name).requires_grad_(True).parameters())
            groups.append({"params": parameters, "factor": factor, "backbone": True})
        heads = [p for n, p in self.teacher.named_parameters() if not n.startswith("backbone.")]
        return [*groups, {"params": heads, "factor": 1.0, "backbone": False}]

    def _set_learning_rates(self) -> None:
        config, seen = self.config, self.images_seen
        cosine = 0.5 + 0.5 * math.cos(math.pi * seen / config.images)
        since = max(0, seen - HEADS_ONLY)
        for group in self.optimiser.param_groups:
            rise = min(1.0, since / (0.05 * config.images)) if group["backbone"] else 1.0
            group["lr"] = config.lr * cosine * group["factor"] * rise

    def _down_weight_noisy_labels(self) -> None:
        """Weigh down the labels that the teacher, so far, contradicts strongly."""
        with self._autocast():
            ages, _ = estimate(
                self.ema, self.faces.images, self.faces.labels.valid, zooms=(1.0,), mirrors=(1.0,)
            )
        self.label_weights = down_weight_labels(self.dataset, self.faces.labels, ages.cpu())
        self.cleaned = True
        noisy = self.label_weights < 0.5 * ESTIMATED_LABEL_WEIGHT
        self.progress.record(self.images_seen, {"labels_down_weighted": float(noisy.sum())})

    # -- results -------------------------------------------------------------------------------

    def _save(self) -> Path:
        path = self.config.out / "teacher.safetensors"
        with self._autocast():
            ages, male = estimate(self.ema, self.val.images, self.val.labels.valid)
        figures = measure(ages.cpu(), male.cpu(), self.val.labels, self.val_dataset.male)
        self.progress.record(self.images_seen, figures)
        tensors = {
            name: (value.half() if value.ndim > 1 else value.float()).contiguous().cpu()
            for name, value in self.ema.state_dict().items()
        }
        options = self._options()
        metadata = {
            "format": FORMAT,
            "images_seen": str(self.images_seen),
            "figures": json.dumps(figures),
            "training": json.dumps(options),
        }
        replace_file(path, lambda temporary: save_file(tensors, temporary, metadata))
        save_state(
            self.config.out / "state.pt",
            {
                "teacher": self.teacher.state_dict(),
                "ema": self.ema.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "label_weights": self.label_weights,
                "cleaned": self.cleaned,
                "images_seen": self.images_seen,
                "config": options,
            },
        )
        return path

    def _load_state(self) -> None:
        path = self.config.out / "state.pt"
        if not path.is_file():
            return
        state = load_state(path)
        check_options(path, self._options(), state["config"])
        if len(state["label_weights"]) != len(self.dataset):
            raise ConfigError(
                f"{path} was trained on a dataset of another size "
                f"({len(state['label_weights'])} pictures, now {len(self.dataset)}).",
                "Give another --out, or the same data.",
            )
        for name in ("teacher", "ema", "optimiser"):
            getattr(self, name).load_state_dict(state[name])
        self.label_weights, self.cleaned = state["label_weights"], state["cleaned"]
        self.images_seen = state["images_seen"]

    def _options(self) -> dict[str, Any]:
        """The options that a resumed run must share."""
        return {name: v for name, v in asdict(self.config).items() if name not in CHANGEABLE}

    def _autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16)

    def _decode(self, dataset: Dataset) -> DecodedDataset:
        with self.progress.task(f"decoding {dataset.name}", len(dataset)) as advance:
            return decode(dataset, CROP_SIZE, advance)


def augmented_windows(images: Tensor, valid: Tensor, size: int) -> Tensor:
    """The backbone's windows of FFHQ crops, strongly augmented: N,3,size,size in [-1, 1].

    Half of the crops get the valid box of another one, too, because padding depends on the source
    of a picture and the source on age.

    Args:
        images: N,R,R,3 uint8.
        valid: N,4 in fractions of the side.
        size: px.
    """
    count, device = len(images), images.device
    transform = random_similarity(count, device, angle=10, zoom=0.1, shift=0.03)
    grid = window_grid(transform, size, WINDOW)
    other = valid[torch.randperm(count, device=device)]
    both = torch.cat([torch.maximum(valid, other)[:, :2], torch.minimum(valid, other)[:, 2:]], 1)
    box = torch.where(torch.rand(count, 1, device=device) < 0.5, both, valid)
    windows = crop_windows(images, grid, box)
    windows = recolour(windows, strength=0.3)
    chosen = torch.randperm(count, device=device)[: round(DEGRADED * count)]
    windows[chosen] = erase(degrade(windows[chosen]))
    return windows.clamp(-1, 1)


def down_weight_labels(
    dataset: Dataset, labels: Labels, ages: Tensor | None = None
) -> Tensor:  # (N,)
    """Weights of the labels in the age loss.

    A label that is itself an estimate weighs less, and so does one that contradicts the teacher by
    more than 6 years plus a quarter of the age.

    Args:
        ages: the teacher's age distributions, N,101; None or empty weighs no contradictions.
    """
    estimated = torch.tensor([sample.estimated for sample in dataset.samples])
    weights = torch.where(estimated, ESTIMATED_LABEL_WEIGHT, 1.0).to(labels.ages)
    if ages is None or not len(ages):
        return weights
    gap = (_expected_age(ages) - labels.ages).abs()
    excess = (gap / (6 + 0.25 * labels.ages) - 1).clamp(min=0)
    return weights * torch.exp(-2 * excess**2).clamp(min=0.05)


def teacher_age_loss(
    logits: Tensor, ages: Tensor, groups: Tensor, exact: Tensor
) -> Tensor:  # N,101 -> (N,)
    """Cross-entropy with the label distribution, on the groups, and L1 of the expected age.

    Where only the group is known (`exact` is false), only the group counts.
    """
    logits = logits.float()
    distance = (_expected_age(logits.softmax(1)) - ages).abs()
    return age_losses(logits, ages, groups, exact) + 0.05 * distance * exact


def gender_loss(output: TeacherOutput, male: Tensor) -> Tensor:
    """Binary cross-entropy; -1 in `male` stands for an unknown gender."""
    known = male >= 0
    loss = F.binary_cross_entropy_with_logits(
        output.gender_logits.float(), male.clamp(min=0), reduction="none"
    )
    return (loss * known).sum() / known.sum().clamp(min=1)


def measure(ages: Tensor, male: Tensor, labels: Labels, true_male: Tensor) -> dict[str, float]:
    """Accuracy, accuracy within one group, MAE, recall of each group, and gender accuracy."""
    predicted = torch.tensor([summarize_distribution(row)[0] for row in ages.double().numpy()])
    groups = torch.tensor([nearest_group(float(age)) for age in predicted])
    true, known = labels.groups, true_male >= 0
    figures = {
        "val/accuracy": (groups == true).float().mean(),
        "val/one_off": ((groups - true).abs() <= 1).float().mean(),
        "val/mae": (predicted - labels.ages).abs()[labels.exact].mean(),
        "val/gender": ((male > 0.5) == (true_male > 0.5))[known].float().mean(),
    }
    for group, name in enumerate(GROUP_NAMES):
        figures[f"val/recall {name}"] = (groups == true)[true == group].float().mean()
    return {name: round(float(value), 4) for name, value in figures.items()}


def _expected_age(distributions: Tensor) -> Tensor:  # N,101 -> (N,) years
    years = torch.arange(YEARS, device=distributions.device, dtype=torch.float32)
    return distributions @ years
