"""Training options and recipes.

A recipe is a named set of options (`paper`, `compact`) or a TOML file with the same keys;
`--set model.width=48` changes single options.
"""

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from faceage import hub
from faceage.checkpoints import check_config
from faceage.errors import ConfigError, WeightsError
from faceage.models.architecture import ModelConfig
from faceage.training.losses import LossWeights


@dataclass(frozen=True)
class TrainConfig:
    """All options of a training run; the defaults are the `paper` recipe.

    Attributes:
        data: dataset name or folder.
        out: run directory: state, weights, samples, stats.jsonl.
        recipe: the recipe's name, stored in the weights' metadata.
        model: the architecture; with a fine level, it alone is trained, on pairs given as `data`.
        losses: the loss weights.
        images: length of the training, in images seen by all processes together.
        warmup_images: length of the warm-up, the first part of the training, which trains encoder,
            decomposition and classifier on the age loss alone.
        warmup_batch: batch size of the warm-up, over all processes.
        batch_size: batch size of the synthesis, over all processes.
        lr, lr_discriminator: Adam's learning rates in the synthesis.
        lr_rise_images: length of the linear rise of these rates from 0 at the beginning of the
            synthesis. Adam's first steps are as large as all others, whatever the gradient, and
            would spoil trained weights.
        discriminator_updates: updates of the discriminator per batch; those after the first use
            stored features from the replay buffer.
        lr_warmup: peak learning rate of the warm-up: linear over its first 5 %, then a cosine to 0.
        lr_encoder: factor on `lr` for encoder, decomposition and classifier; 0 freezes them.
        weight_decay: on matrices and kernels, in the warm-up.
        ema_images: half-life of the exponential moving average of the weights, in images.
        recon_fraction: fraction of each batch used for the reconstruction and for the cycle.
        balance, sharpness: see `sampling.draw_weights`; sharpness is for the synthesis only.
        diff_augment: apply DiffAugment to the discriminator's input.
        r1_interval: steps between two R1 penalties.
        seed: of all random numbers.
        grad_clip: largest norm of a network's gradient in a step; 0 does not clip.
        dtype: "bfloat16" (autocast, with float32 weights) or "float32".
        compile: compile the networks with torch.compile, except for a discriminator with R1.
        memory_gb: memory for decoded pictures, of all processes on a machine together; larger
            datasets are decoded while training. None: half of the free memory.
        workers: processes that decode pictures while training, for each training process; 0
            decodes in the training process.
        save_minutes: time between two savings of state, weights and samples.
        projected: the discriminator uses VGG19's features instead of learning its own.
        age_features: the projected discriminator also uses the encoder's age features.
        vgg: file of VGG19's weights (torchvision's .pth, or .safetensors); None: the one that
            `faceage weights fetch vgg19` has fetched.
        embedder: file of a MobileNetV1 that was trained on identities, for losses.identity and
            losses.gender.
        weights: start from the generator in this weights file instead of random weights.
        discriminator: start from the discriminator in this training state (`state.pt` of a run).
        teacher: file of the age teacher (`faceage train-teacher`). The warm-up starts from it and
            learns from its age distributions; needs model.encoder=mobilenet.
        distill_from: weights file whose synthesis is distilled after the warm-up, in place of the
            synthesis losses.
        pairs: dataset of the same people at several ages (`faceage pairs`); None trains without.
        pairs_fraction: fraction of each batch whose sources and targets are such pairs.
        flow_images: length of the first part of the synthesis, which trains on pairs only, without
            the residual: first the displacement moves what has another place at the target age.
        licence: of the trained weights, stored in their metadata.
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
    lr_rise_images: int = 0
    discriminator_updates: int = 1
    lr_warmup: float = 2.5e-3
    lr_encoder: float = 1.0
    weight_decay: float = 0.05
    ema_images: int = 10_000
    recon_fraction: float = 1.0
    balance: float = 0.5
    sharpness: float = 0.0
    diff_augment: bool = False
    r1_interval: int = 16
    seed: int = 0
    grad_clip: float = 0.0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    compile: bool = False
    memory_gb: float | None = None
    workers: int = 4
    save_minutes: float = 10.0
    projected: bool = False
    age_features: bool = False
    vgg: Path | None = None
    embedder: Path | None = None
    weights: Path | None = None
    discriminator: Path | None = None
    teacher: Path | None = None
    distill_from: Path | None = None
    pairs: str | None = None
    pairs_fraction: float = 0.5
    flow_images: int = 0
    licence: str = "unknown: set by whoever trained these weights"

    def check(self, processes: int = 1) -> None:
        """Raise ConfigError with all contradictions between the options."""
        problems = []
        counts = ("ema_images", "r1_interval", "discriminator_updates")
        for name in ("images", "batch_size", "warmup_batch", *counts):
            if getattr(self, name) < 1:
                problems.append(f"{name} is {getattr(self, name)}, must be at least 1")
        for name, value in (*_numbers("", self), *_numbers("losses.", self.losses)):
            if name != "seed" and not (math.isfinite(value) and value >= 0):
                problems.append(f"{name} is {value}, must be 0 or more")
        problems += [f"model.{problem}" for problem in check_config(self.model)]
        for name in ("batch_size", "warmup_batch"):
            if getattr(self, name) % processes:
                problems.append(f"{name} {getattr(self, name)} is not divisible by {processes}")
        if not 0 < self.recon_fraction <= 1:
            problems.append(f"recon_fraction is {self.recon_fraction}, must be in (0, 1]")
        if not 0 <= self.pairs_fraction < 1:
            problems.append(f"pairs_fraction is {self.pairs_fraction}, must be in [0, 1)")
        users = ["flow_images"] * bool(self.flow_images)
        users += [
            name
            for name in ("paired", "paired_features", "paired_texture")
            if getattr(self.losses, name)
        ]
        if users and not self.pairs and not self.model.fine_level:
            problems.append(f"{' and '.join(users)} needs a dataset of pairs: set pairs")
        if not self.model.decomposition and self.warmup_images:
            problems.append("warmup_images needs model.decomposition=true: it trains a classifier")
        users = ["losses.target_age"] * bool(self.losses.target_age)
        users += ["age_features"] * (self.projected and self.age_features)
        if users and not (self.model.decomposition and (self.warmup_images or self.weights)):
            problems.append(
                f"{' and '.join(users)} needs a trained classifier: set warmup_images or weights"
            )
        if self.model.fine_level:
            if not (self.weights and self.projected) or self.warmup_images:
                problems.append(
                    "model.fine_level needs weights to start from, projected=true and no warm-up"
                )
            if self.pairs or self.teacher:
                problems.append(
                    "model.fine_level is trained on pairs given as data, without pairs and teacher"
                )
        users = [f"losses.{n}" for n in ("identity", "gender") if getattr(self.losses, n)]
        if users and self.embedder is None:
            problems.append(f"{' and '.join(users)} needs an embedder: set embedder")
        if (self.teacher is None) != (self.distill_from is None):
            problems.append("teacher and distill_from are used together")
        if problems:
            raise ConfigError(
                f"Invalid options: {'; '.join(problems)}.", "Change them with --set or the recipe."
            )


def _numbers(prefix: str, options: Any) -> list[tuple[str, float]]:
    values = ((f.name, getattr(options, f.name)) for f in dataclasses.fields(options))
    return [(f"{prefix}{n}", v) for n, v in values if type(v) in (int, float)]


def find_vgg(config: TrainConfig) -> Path | None:
    """The file of VGG19's weights, if the options need it: `vgg`, or else the fetched one.

    Raises:
        ConfigError: it is needed, but there is none.
    """
    if not (config.losses.perceptual or config.projected):
        return None
    if config.vgg:
        return config.vgg
    with suppress(WeightsError):
        return hub.find("vgg19")
    raise ConfigError(
        "projected and losses.perceptual need VGG19's weights, which are not on this machine.",
        "Get them with: faceage weights fetch vgg19 (575 MB). Or give the file with --vgg, or "
        "train without: --set projected=false --set losses.perceptual=0",
    )


# Options that are paths on this machine.
PATHS = (
    "data", "out", "pairs", "vgg", "embedder", "weights", "discriminator", "teacher",
    "distill_from",
)  # fmt: skip

# Options that may change when a run resumes.
CHANGEABLE = (*PATHS, "images", "licence", "memory_gb", "save_minutes", "workers")

_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}

# Starts from weights of the recipe `distilled`, whose encoder and classifier stay as they are;
# `paired-fine-tune` and `fine-level` start from weights of `paired`.
_PAIRED: dict[str, Any] = {
    "model": {
        "size": 128,
        "classifier_size": 192,
        "width": 64,
        "encoder": "mobilenet",
        "decoder": "unet",
        "decoder_blocks": 4,
        "desaturation": True,
    },
    "losses": {
        "cycle": 5.0,
        "perceptual": 0.0,
        "target_age": 0.25,
        "change": 0.1,
        "r1": 0.0,
        "wrong_age": 0.5,
        "paired": 10.0,
        "paired_features": 1.0,
    },
    "images": 400_000,
    "flow_images": 10_000,
    "pairs_fraction": 0.625,
    "lr": 5e-4,
    "lr_discriminator": 1e-3,
    "discriminator_updates": 2,
    "ema_images": 10_000,
    "lr_encoder": 0.0,
    "recon_fraction": 0.25,
    "sharpness": 0.5,
    "projected": True,
    "diff_augment": True,
}

# Differences from the defaults. `paper` has the paper's five losses and no extension.
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
        "recon_fraction": 0.25,
        "sharpness": 0.5,
        "projected": True,
        "age_features": True,
        "diff_augment": True,
    },
    "paired": _PAIRED,
    "paired-fine-tune": _PAIRED
    | {
        "losses": _PAIRED["losses"]
        | {"target_age": 0.4, "identity": 0.2, "gender": 0.5, "skin_tone": 10.0},
        "images": 25_000,
        "flow_images": 0,
        "pairs_fraction": 0.6875,
        "lr": 2e-4,
        "lr_discriminator": 4e-4,
        "lr_rise_images": 2_000,
    },
    "fine-level": {
        "model": _PAIRED["model"] | {"fine_level": True},
        "losses": {
            "adversarial": 0.2,
            "paired": 1.0,
            "paired_features": 0.3,
            "paired_texture": 5.0,
            "r1": 0.0,
        },
        "images": 100_000,
        "lr": 7e-4,
        "lr_discriminator": 2e-3,
        "lr_rise_images": 1_000,
        "lr_encoder": 0.0,
        "projected": True,
    },
    "distilled": {
        "model": dataclasses.asdict(ModelConfig.compact(encoder="mobilenet", classifier_size=192)),
        "losses": {"perceptual": 0.0},
        "images": 60_000,
        "warmup_images": 15_000,
        "warmup_batch": 48,
        "lr_warmup": 3e-4,
        "weight_decay": 0.02,
        "lr": 1e-3,
        "lr_encoder": 0.0,
        "ema_images": 5_000,
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
        changes: top-level options to change; None leaves an option unchanged.

    Raises:
        ConfigError: no such recipe, an unknown key, or a value of the wrong type.
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
                raise ConfigError(f"Unknown option {key!r}.", _list_options(TrainConfig))
        target[name] = _parse_value(text.strip())
    return from_dict(values)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """The options as plain values, for json and the training state."""
    return {
        key: str(value) if isinstance(value, Path) else value
        for key, value in dataclasses.asdict(config).items()
    }


def from_dict(options: dict[str, Any]) -> TrainConfig:
    """The options of `to_dict`; those that are missing have their defaults.

    Raises:
        ConfigError: an unknown option, or a value of a wrong type.
    """
    config: TrainConfig = _build(TrainConfig, options, "")
    return config


def _read_recipe(recipe: str) -> dict[str, Any]:
    if recipe in RECIPES:
        return {k: dict(v) if isinstance(v, dict) else v for k, v in RECIPES[recipe].items()}
    path = Path(recipe)
    if path.suffix != ".toml":
        raise ConfigError(f"No recipe {recipe!r}.", f"Use {', '.join(RECIPES)} or a .toml file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Cannot read the recipe {recipe}: {error}.", "Give a file in the format TOML."
        ) from None


def _build(cls: type, values: dict[str, Any], prefix: str) -> Any:
    types_of = typing.get_type_hints(cls)
    unknown = values.keys() - types_of.keys()
    if unknown:
        raise ConfigError(f"Unknown option {prefix + min(unknown)!r}.", _list_options(cls))
    return cls(**{k: _convert(types_of[k], v, f"{prefix}{k}") for k, v in values.items()})


def _convert(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if isinstance(value, dict):
            return _build(kind, value, f"{name}.")  # type: ignore[arg-type]
        raise ConfigError(f"{name} is {value!r}.", f"It is a group: write {name}.KEY=VALUE.")
    if isinstance(kind, types.UnionType):  # an optional value
        if value in (None, ""):
            return None
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value in choices:
            return value
        raise ConfigError(f"{name} is {value!r}.", f"It takes {' or '.join(choices)}.")
    if kind is str:
        return str(value)
    if kind is Path:
        valid = isinstance(value, str | Path)
    elif kind is bool:
        valid = isinstance(value, bool)
    else:  # in Python True is an int
        valid = isinstance(value, int | float) and not isinstance(value, bool)
        valid = valid and (kind is float or float(value).is_integer())
    if not valid:
        raise ConfigError(f"{name} is {value!r}.", f"It takes {_EXPECTED[kind]}.")
    return kind(value)


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text  # paths and names need no quotes


def _list_options(cls: type) -> str:
    return f"Options: {', '.join(f.name for f in dataclasses.fields(cls))}."
