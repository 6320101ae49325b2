"""The networks of a training run, and their optimisers."""

import copy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from faceage.checkpoints import BatchNorm, load_state, load_weights
from faceage.data.augmentation import diff_augment, robust_views
from faceage.errors import ConfigError
from faceage.models.discriminators import AnyDiscriminator, make_discriminator
from faceage.models.generator import SHARED, FaceAgeModel
from faceage.models.identity import IdentityEmbedder
from faceage.models.vgg import VggFeatures
from faceage.training.config import TrainConfig
from faceage.training.losses import PerceptualLoss
from faceage.training.provenance import describe_weights

_Movable = TypeVar(
    "_Movable", Tensor, FaceAgeModel, IdentityEmbedder, VggFeatures, AnyDiscriminator
)


class Networks:
    """Generator, its EMA, discriminator, and the optimisers of warm-up and synthesis.

    Args:
        vgg: VGG19, if the options need it.
        synchronise: compute batch statistics over all processes.
    """

    STATEFUL = (
        "model",
        "ema",
        "discriminator",
        "optimiser_warmup",
        "optimiser",
        "optimiser_discriminator",
    )

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        vgg: VggFeatures | None = None,
        synchronise: bool = False,
    ) -> None:
        self._device = device
        torch.manual_seed(config.seed)
        model = FaceAgeModel(config.model)
        self._initialise(model)
        self.model = self.to_device(model)
        self.ema = copy.deepcopy(self.model).eval().requires_grad_(False)
        if synchronise:
            # Not the EMA model: one process alone runs it, which would wait for the others forever.
            self.model = nn.SyncBatchNorm.convert_sync_batchnorm(self.model)  # type: ignore[no-untyped-call]
        self.vgg = vgg and self.to_device(vgg)
        self.perceptual: PerceptualLoss | None = None
        if self.vgg and config.losses.perceptual:
            self.perceptual = PerceptualLoss(self.vgg)
        self.age_views = partial(
            robust_views,
            size=config.model.classifier_size,
            window=config.model.classifier_window,
        )
        discriminator = make_discriminator(
            config.model,
            self.vgg if config.projected else None,
            self.ema if config.age_features else None,
            diff_augment if config.diff_augment else None,
            self.age_views,
        )
        self.discriminator = self.to_device(discriminator)
        self.optimiser_warmup, self.optimiser = self._make_optimisers(config)
        self.optimiser_discriminator = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.lr_discriminator, betas=(0.5, 0.99)
        )
        if config.compile:
            self._compile(with_discriminator=not config.losses.r1)

    def _initialise(self, model: FaceAgeModel) -> None:
        """Change the random initial weights; nothing to do here."""

    def _make_optimisers(
        self, config: TrainConfig
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """The generator's optimisers in the warm-up and in the synthesis."""
        warmed = [p for part in warmup_parts(self.model) for p in part.parameters()]
        ids = {id(p) for p in warmed}
        others = [p for p in self.model.parameters() if id(p) not in ids]
        decayed: dict[str, Any] = {"params": [p for p in warmed if p.ndim > 1]}
        not_decayed = {"params": [p for p in warmed if p.ndim <= 1], "weight_decay": 0.0}
        warmup = torch.optim.AdamW(
            [decayed, not_decayed], lr=config.lr_warmup, weight_decay=config.weight_decay
        )
        groups: list[dict[str, Any]] = [
            {"params": others},
            {"params": warmed, "factor": config.lr_encoder},
        ]
        synthesis = torch.optim.Adam(
            groups,
            lr=config.lr,  # the trainer sets it before every step
            betas=(0.0, 0.99),
        )
        return warmup, synthesis

    def _compile(self, with_discriminator: bool) -> None:
        """Compile in place, so that the names in the state stay the same.

        Not with R1, whose second derivatives torch.compile does not support.
        """
        networks: list[nn.Module] = [*self.model.children(), *self.ema.children()]
        if self.vgg is not None:
            networks.append(self.vgg)
        if with_discriminator:
            networks.append(self.discriminator)
        for network in networks:
            network.compile()

    def start_from(self, path: Path) -> dict[str, str]:
        """Copy the generator of a weights file; returns its description for the metadata.

        Encoder, decomposition and classifier must be of the same architecture. Of another decoder,
        the layers that both have are copied, and the others keep their random initial weights.

        Raises:
            ConfigError: it has another encoder or classifier.
            WeightsError: missing or damaged.
        """
        source, metadata = load_weights(path, self._device)
        state = self.model.state_dict()
        fitting = {
            name: value
            for name, value in source.state_dict().items()
            if name in state and value.shape == state[name].shape
        }
        missing = [name for name in state if name.split(".")[0] in SHARED and name not in fitting]
        if missing or source.config.classifier_size != self.model.config.classifier_size:
            raise ConfigError(
                f"{path} has another encoder or classifier.",
                f"Set the options model.* to its own: {metadata['config']}.",
            )
        for name, value in fitting.items():
            state[name].copy_(value)
        for model in (self.model, self.ema):
            model.load_state_dict(state)
        return describe_weights(path, metadata)

    def start_discriminator_from(self, path: Path) -> None:
        """Copy the discriminator in the training state of another run.

        Raises:
            ConfigError: it has another architecture.
            WeightsError: missing or damaged.
        """
        state = load_state(path, self._device)
        try:
            self.discriminator.load_state_dict(state["discriminator"])
        except (KeyError, RuntimeError):
            raise ConfigError(
                f"{path} has another discriminator.",
                "Set the options projected, age_features and model.* as in its run.",
            ) from None

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the EMA weights towards the weights; `decay` is the part that stays."""
        for average, value in zip(self.ema.parameters(), self.model.parameters(), strict=True):
            average.lerp_(value, 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """The state of all networks and optimisers, by name."""
        return {name: getattr(self, name).state_dict() for name in self.STATEFUL}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` has given; other entries are ignored."""
        for name in self.STATEFUL:
            getattr(self, name).load_state_dict(state[name])

    def to_device(self, value: _Movable) -> _Movable:
        """A tensor or network on the device, in the memory format channels last."""
        return value.to(self._device).to(memory_format=torch.channels_last)


def warmup_parts(model: FaceAgeModel) -> list[nn.Module]:
    """The parts that the warm-up trains."""
    if not model.config.decomposition:
        return [model.encoder]
    return [model.encoder, model.decomposition, model.classifier]


def batch_norms(*parts: nn.Module) -> list[BatchNorm]:
    """All batch norms in some networks."""
    return [m for part in parts for m in part.modules() if isinstance(m, BatchNorm)]
