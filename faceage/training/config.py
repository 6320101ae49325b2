"""Training options, and the recipes: named sets of them.

A recipe is a name (`paper`, `compact`) or a TOML file with the same keys; `--set model.width=48`
changes one of them.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from faceage.errors import ConfigError
from faceage.models.discriminators import make_discriminator
from faceage.models.generator import FaceAgeModel, ModelConfig
from faceage.models.vgg import VggFeatures
from faceage.training.losses import LossWeights


@dataclass(frozen=True)
class TrainConfig:
    """All options of a training run; the defaults are the `paper` recipe.

    Attributes:
        data: dataset name or folder.
        out: run directory: state, weights, samples, stats.jsonl.
        recipe: the name that stands in the weights' metadata.
        model: the architecture.
        losses: the loss weights.
        images: length of the training, in images seen by all processes together.
        warmup_images: of these, the first train encoder, decomposition and classifier alone.
        warmup_batch: batch size meanwhile, over all processes.
        batch_size: over all processes.
        lr, lr_discriminator: Adam's learning rates in the synthesis.
        discriminator_updates: on each batch; next to what it costs to see faces, they cost little.
        lr_warmup: peak learning rate of the warm-up, rising over its first 5 %, then a cosine to 0.
        lr_encoder: factor on `lr` for what the warm-up has trained; 0 leaves it as it is.
        weight_decay: on matrices and kernels, in the warm-up.
        ema_images: half-life of the averaged weights.
        share: how much of each batch is reconstructed, and how much makes the cycle.
        balance, sharpness: see `sampling.draw_weights`; sharpness counts after the warm-up.
        diff_augment: DiffAugment in front of the discriminator.
        r1_interval: steps from one R1 penalty to the next.
        seed: of everything random.
        save_minutes: between two savings of state, weights and samples.
        projected: the discriminator sees VGG19's features instead of learning its own.
        age_features: the projected discriminator sees the encoder's age features, too.
        vgg: file of VGG19's convolutions (.safetensors, or torchvision's .pth).
        weights: start from the generator of this weights file instead of from nothing.
    """

    data: str
    out: Path
    recipe: str = "paper"
    model: ModelConfig = field(default_factory=ModelConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    images: int = 5_000_000
    warmup_images: int = 0
    warmup_batch: int = 64
    batch_size: int = 16
    lr: float = 1e-4
    lr_discriminator: float = 1e-4
    discriminator_updates: int = 1
    lr_warmup: float = 2.5e-3
    lr_encoder: float = 1.0
    weight_decay: float = 0.05
    ema_images: int = 10_000
    share: float = 1.0
    balance: float = 0.5
    sharpness: float = 0.0
    diff_augment: bool = False
    r1_interval: int = 16
    seed: int = 0
    save_minutes: float = 10.0
    projected: bool = False
    age_features: bool = False
    vgg: Path | None = None
    weights: Path | None = None

    def check(self, processes: int = 1) -> None:
        """Raises ConfigError with every contradiction there is."""
        problems = []
        counts = ("ema_images", "r1_interval", "discriminator_updates")
        for name in ("images", "batch_size", "warmup_batch", *counts):
            if getattr(self, name) < 1:
                problems.append(f"{name} is {getattr(self, name)}, must be at least 1")
        for name, value in (*_numbers("", self), *_numbers("losses.", self.losses)):
            if name != "seed" and not (math.isfinite(value) and value >= 0):
                problems.append(f"{name} is {value}, must be 0 or more")
        for name, value in _numbers("model.", self.model):
            if value < (0 if name == "model.decoder_blocks" else 1):
                problems.append(f"{name} is {value}, must be at least 1")
        for name in ("batch_size", "warmup_batch"):
            if getattr(self, name) % processes:
                problems.append(f"{name} {getattr(self, name)} is not divisible by {processes}")
        if not 0 < self.share <= 1:
            problems.append(f"share is {self.share}, must be in (0, 1]")
        if self.model.size < 32 or self.model.size & (self.model.size - 1):
            problems.append(f"model.size is {self.model.size}, must be a power of two from 32 on")
        if self.model.classifier_size % 32:  # five halvings on the way to the years
            problems.append(f"model.classifier_size is {self.model.classifier_size}, not n x 32")
        if self.model.width % 16:
            problems.append(f"model.width is {self.model.width}, not a multiple of 16")
        if not self.model.decomposition and self.warmup_images:
            problems.append("without decomposition there is no classifier to warm up")
        reading = self.projected and self.age_features
        asked = ["losses.target_age"] * bool(self.losses.target_age) + ["age_features"] * reading
        if asked and not (self.model.decomposition and (self.warmup_images or self.weights)):
            problems.append(f"{' and '.join(asked)}: no warm-up trains a classifier to ask")
        if problems:
            raise ConfigError(
                f"These options do not go together: {'; '.join(problems)}.", "Correct them."
            )
        if (self.losses.perceptual or self.projected) and self.vgg is None:
            raise ConfigError(
                "projected and losses.perceptual need VGG19, but vgg is not given.",
                f"Give --vgg {VGG19.rpartition('/')[2]}, from {VGG19} (575 MB), or --set "
                "projected=false and losses.perceptual=0.",
            )


def _numbers(prefix: str, options: Any) -> list[tuple[str, float]]:
    values = ((f.name, getattr(options, f.name)) for f in dataclasses.fields(options))
    return [(f"{prefix}{n}", v) for n, v in values if type(v) in (int, float)]


VGG19 = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}

# What differs from the defaults. `paper` is the paper: five losses, no extension.
RECIPES: dict[str, dict[str, Any]] = {
    "paper": {},
    "compact": {
        "model": dataclasses.asdict(ModelConfig.compact()),
        "losses": {
            "cycle": 2.0,
            "perceptual": 0.0,
            "target_age": 0.25,
            "change": 0.2,
            "r1": 0.0,
            "wrong_age": 0.5,
        },
        "images": 850_000,
        "warmup_images": 600_000,
        "lr": 2.5e-4,
        "lr_discriminator": 1e-3,
        "discriminator_updates": 3,
        "ema_images": 15_000,
        "lr_encoder": 0.0,
        "share": 0.25,
        "sharpness": 0.5,
        "projected": True,
        "age_features": True,
        "diff_augment": True,
    },
}


def make_config(
    recipe: str, data: str, out: str | Path, settings: Iterable[str] = (), **changes: Any
) -> TrainConfig:
    """The options of a run.

    Args:
        recipe: "paper", "compact", or a TOML file.
        data: dataset name or folder.
        out: run directory.
        settings: "key=value" or "group.key=value", applied last.
        changes: top-level options to change; None changes nothing.

    Raises:
        ConfigError: no such recipe, an unknown key, or a value of the wrong kind.
    """
    values = _read_recipe(recipe) | {"data": data, "out": str(out), "recipe": Path(recipe).stem}
    values |= {name: value for name, value in changes.items() if value is not None}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"Cannot read --set {setting!r}.", "Write it key=value.")
        *groups, name = key.strip().split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ConfigError(f"Unknown option {key!r}.", _choices(TrainConfig))
        target[name] = _value(text.strip())
    return _build(TrainConfig, values, "")


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The options as plain values, for json and the training state."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(config).items()
    }


def _read_recipe(recipe: str) -> dict[str, Any]:
    if recipe in RECIPES:
        return {k: dict(v) if isinstance(v, dict) else v for k, v in RECIPES[recipe].items()}
    path = Path(recipe)
    if path.suffix != ".toml":
        raise ConfigError(
            f"No recipe {recipe!r}.", f"Take {', '.join(RECIPES)}, or give a .toml file."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read the recipe {recipe}: {error}.", "Correct it.") from None


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    kinds = typing.get_type_hints(cls)
    unknown = values.keys() - kinds.keys()
    if unknown:
        raise ConfigError(f"Unknown option {prefix + min(unknown)!r}.", _choices(cls))
    return cls(**{k: _convert(kinds[k], v, f"{prefix}{k}") for k, v in values.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return _build(kind, value, f"{name}.")  # type: ignore[arg-type]
        raise ConfigError(f"{name} is {value!r}.", f"It is a group: write {name}.key=value.")
    if isinstance(kind, types.UnionType):  # Path | None
        if value in (None, ""):
            return None
        kind = Path
    if kind is str:
        return str(value)
    if kind is Path:
        fits = isinstance(value, str | Path)
    elif kind is bool:
        fits = isinstance(value, bool)
    else:  # True is an int to Python, but not to whoever wrote it
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        fits = fits and (kind is float or float(value).is_integer())
    if not fits:
        raise ConfigError(f"{name} is {value!r}.", f"It takes {_KINDS[kind]}.")
    return kind(value)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text  # paths and names need no quotes


def _choices(cls: type) -> str:
    return f"Options: {', '.join(f.name for f in dataclasses.fields(cls))}."


def cost(config: TrainConfig) -> dict[str, float]:
    """What a run costs: millions of parameters, and GMAC a face on each way through the networks.

    Counted on shapes alone (meta tensors); nothing is computed.
    """
    with torch.device("meta"):
        model = FaceAgeModel(config.model)
        discriminator = make_discriminator(
            config.model,
            VggFeatures(None) if config.projected else None,
            model if config.age_features else None,
        )
        faces = torch.empty(2, 3, config.model.size, config.model.size)
        age = torch.empty(2)
        model.eval()
        encoded = model.encode(faces)
        ways: dict[str, Callable[[], Any]] = {
            "encode": lambda: model.encode(faces),
            "decode": lambda: model.decode(
                encoded, age, None if config.model.decomposition else age
            ),
            "discriminate": lambda: discriminator(discriminator.see(faces)),
        }
        if config.model.decomposition:
            crop = torch.empty(2, 3, *[config.model.classifier_crop] * 2)
            ways["classify"] = lambda: model.age_logits(crop)
        figures: dict[str, float] = {}
        for name, way in ways.items():
            with FlopCounterMode(display=False) as counter:
                way()
            figures[f"gmac_{name}"] = round(counter.get_total_flops() / 4e9, 4)
    for name, net in (("generator", model), ("discriminator", discriminator)):
        figures[f"million_parameters_{name}"] = round(
            sum(p.numel() for p in net.parameters()) / 1e6, 3
        )
    return figures
