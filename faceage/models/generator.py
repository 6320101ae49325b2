"""The generator: encoder, attention decomposition, age classifier and decoder.

Kim & Park, "Facial Age Classification and Synthesis using Feature Decomposition", JBE 28(2), 2023.
Shapes stand on the right margin; `h = w = S / 8`; ages are years. This module does not depend on
files, devices, the command line or training.

Differences from the paper, and their reasons:
- The decoder outputs a change (a residual and a smooth displacement) instead of a face. Identity
  and sharpness then come from the photo, and the change can be applied at the photo's own
  resolution. The displacement lets the shape of the head change, as it does in children.
- The classifier outputs a distribution over the years 0-100. Its sums over groups are the paper's
  ten classes; its median is a numeric age.
- The classifier takes the inner face, at a finer scale than the synthesis: hair style, clothes and
  background do not determine age, and wrinkles need resolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import GROUP_STARTS, YEARS
from faceage.models.layers import (
    AgeEmbedding,
    ConditionalBatchNorm2d,
    ModulatedBlock,
    ResidualBlock,
)
from faceage.models.mobilenet import WINDOW_CENTRE_Y, WINDOW_SIDE, MobileNet, hidden_layers

ENCODER_LAYERS = 5  # of MobileNet: the features at 1/8 of the resolution

# The inner face in an FFHQ crop, in fractions of its side: half of it, slightly below the centre.
INNER_TOP, INNER_LEFT, INNER_SIDE = 0.328125, 0.25, 0.5
Window = tuple[float, float, float]  # top, left, side
INNER_WINDOW: Window = (INNER_TOP, INNER_LEFT, INNER_SIDE)

# The window of the crop that the classifier of each kind of encoder reads: top, left, side.
CLASSIFIER_WINDOWS: dict[str, Window] = {
    "residual": INNER_WINDOW,
    "mobilenet": (WINDOW_CENTRE_Y - WINDOW_SIDE / 2, 0.5 - WINDOW_SIDE / 2, WINDOW_SIDE),
}

# Largest displacement, as a fraction of half the crop's side.
MAX_FLOW = 0.15

# Scale of the residual's chroma relative to its lightness. Wrinkles, folds and cheeks are shading;
# with unrestricted chroma the generator added blue lips and yellow streaks.
CHROMA_SCALE = 0.25

# The same for the U-Net, which is trained on pairs: brown hair that turns white changes in chroma.
UNET_CHROMA_SCALE = 0.5

# Scale of the U-Net's outputs. Adam's steps are as large for them as for inner layers, but all
# weights of an output add up at every pixel: without the scale, the first steps spoil the faces.
UNET_OUTPUT_SCALE = 0.1


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; stored in every weights file.

    Attributes:
        size: side S of the crops whose age is changed, px.
        classifier_size: side of the classifier's input, the inner face, px.
        width: channels after the stem; the features have 4 * width.
        encoder_blocks: residual blocks of each of the encoder's two stages.
        classifier_blocks: residual blocks of each of the classifier's two stages.
        decoder_blocks: modulated blocks at the resolution of the features.
        encoder: "residual", or "mobilenet", the first layers of a pretrained face backbone, with
            its other layers as the classifier.
        decomposition: split the features by attention and classify the age part. False gives
            RAGAN: the decoder takes all features, there is no classifier, and the modulation also
            depends on the source age.
        decoder: "residual", or "unet", which has skip connections at every resolution and displaces
            the features along with the face.
    """

    size: int = 256
    classifier_size: int = 128
    width: int = 64
    encoder_blocks: int = 2
    classifier_blocks: int = 2
    decoder_blocks: int = 3
    encoder: str = "residual"
    decomposition: bool = True
    decoder: str = "residual"

    @classmethod
    def compact(cls, **changes: Any) -> "ModelConfig":
        """128 px and narrow: trains and runs on two CPU cores."""
        defaults: dict[str, Any] = dict(
            size=128,
            classifier_size=96,
            width=32,
            encoder_blocks=1,
            decoder_blocks=1,
        )
        return cls(**(defaults | changes))

    @property
    def channels(self) -> int:
        """Channels C of the features."""
        return 256 if self.encoder == "mobilenet" else 4 * self.width

    @property
    def classifier_window(self) -> Window:
        """The part of the crop that the classifier reads."""
        return CLASSIFIER_WINDOWS[self.encoder]

    @property
    def classifier_crop(self) -> int:
        """Side of the FFHQ crop whose inner face has `classifier_size` px."""
        return round(self.classifier_size / self.classifier_window[2])


class Decomposed(NamedTuple):
    """Encoded faces: identity features, age features, and what skip connections need."""

    identity: Tensor  # N,4*width,h,w; half of that resolution for the U-Net
    age_features: Tensor  # N,C,h,w
    skip: Tensor  # N,3*width,h,w: identity features for the U-Net's skip connection, else empty
    faces: Tensor  # N,3,S,S

    def select(self, index: Tensor) -> "Decomposed":
        """The encoded faces at `index`, which may repeat: encode once, decode to many ages."""
        return Decomposed(*(part[index] for part in self))


class Change(NamedTuple):
    """The change from one age to another, applicable at any resolution: displace, then add."""

    residual: Tensor  # N,3,S,S, unbounded
    flow: Tensor  # N,2,h,w in [-MAX_FLOW, MAX_FLOW]: sampling offset x, y in half sides


class Encoder(nn.Module):
    """Faces -> features at an eighth of the resolution. Fully convolutional: takes any size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.stem = nn.Sequential(
            nn.Conv2d(12, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stages = nn.Sequential(
            *_stage(width, 2 * width, config.encoder_blocks),
            *_stage(2 * width, 4 * width, config.encoder_blocks + 1),
        )

    def forward(self, detail: Tensor) -> Tensor:  # N,12,S/2,S/2 -> N,C,S/8,S/8
        features: Tensor = self.stages(self.stem(detail))
        return features


class Decomposition(nn.Module):
    """Attention that splits features into identity and age features (MTLFace, CVPR 2021)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        pooled = channels * sum(bins * bins for bins in (1, 2, 3))
        self.channel = nn.Sequential(
            nn.Conv2d(pooled, channels // 16, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // 16, channels, 1, bias=False),
        )
        self.channel_norm = nn.BatchNorm2d(channels)
        self.spatial = nn.Conv2d(2, 1, 7, 1, 3, bias=False)
        self.spatial_norm = nn.BatchNorm2d(1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:  # N,C,h,w -> two of N,C,h,w
        average = self._pyramid(F.adaptive_avg_pool2d, features)
        largest = self._pyramid(F.adaptive_max_pool2d, features)
        channel = self.channel_norm(self.channel(average) + self.channel(largest)).sigmoid()
        summary = torch.cat(
            [features.amax(1, keepdim=True), features.mean(1, keepdim=True)], dim=1
        )  # N,2,h,w
        spatial = self.spatial_norm(self.spatial(summary)).sigmoid()
        age_features = features * (0.5 * (channel + spatial))
        return features - age_features, age_features

    @staticmethod
    def _pyramid(
        pool: Callable[[Tensor, int], Tensor], features: Tensor
    ) -> Tensor:  # N,C,h,w -> N,14C,1,1
        pooled = torch.cat([pool(features, bins).flatten(1) for bins in (1, 2, 3)], 1)
        return pooled[..., None, None]


class AgeClassifier(nn.Module):
    """Age features -> logits over the years 0-100."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.stages = nn.Sequential(
            *_stage(channels, 2 * channels, config.classifier_blocks),
            *_stage(2 * channels, 4 * channels, config.classifier_blocks - 1),
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(4 * channels, YEARS)

    def forward(self, age_features: Tensor) -> Tensor:  # N,C,h,w -> N,101
        logits: Tensor = self.head(self.dropout(self.stages(age_features).mean((2, 3))))
        return logits


class MobileNetClassifier(nn.Module):
    """Age features -> logits over the years 0-100, by the other layers of the face backbone."""

    def __init__(self, hidden: int = 512, dropout: float = 0.3) -> None:
        super().__init__()
        self.layers = MobileNet(first=ENCODER_LAYERS + 1)
        self.body = hidden_layers(hidden, dropout)
        self.head = nn.Linear(hidden, YEARS)

    def forward(self, age_features: Tensor) -> Tensor:  # N,C,h,w -> N,101
        logits: Tensor = self.head(self.body(self.layers(age_features).mean((2, 3))))
        return logits


class AgeFeatureCNN(nn.Module):
    """Identity and target age -> the modulation of every decoder layer (conditional batch norm)."""

    def __init__(self, config: ModelConfig, modulation_channels: int) -> None:
        super().__init__()
        channels = 4 * config.width
        # RAGAN is conditioned on both ages; with the decomposition the source age is not needed.
        condition = channels * (1 if config.decomposition else 2)
        self.embedding = AgeEmbedding(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.norm1 = ConditionalBatchNorm2d(channels, condition)
        self.conv2 = nn.Conv2d(channels, channels, 3, 2, 1)
        self.norm2 = ConditionalBatchNorm2d(channels, condition)
        self.head = nn.Linear(channels + condition, modulation_channels)
        nn.init.zeros_(self.head.bias)

    def forward(self, identity: Tensor, target_age: Tensor, source_age: Tensor | None) -> Tensor:
        condition = self.embedding(target_age)
        if source_age is not None:
            condition = torch.cat([condition, self.embedding(source_age)], 1)
        x = F.relu(self.norm1(self.conv1(identity), condition))
        x = F.relu(self.norm2(self.conv2(x), condition))
        modulation: Tensor = self.head(torch.cat([x.mean((2, 3)), condition], 1))
        return modulation


class Decoder(nn.Module):
    """Identity features, modulated at every layer -> the change to the target age."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            [ModulatedBlock(4 * width, 4 * width) for _ in range(config.decoder_blocks)]
        )
        self.flow = nn.Conv2d(4 * width, 2, 3, 1, 1)
        self.narrow1 = nn.Conv2d(4 * width, 2 * width, 1)
        self.middle = ModulatedBlock(2 * width, 2 * width)  # at S/4
        self.narrow2 = nn.Conv2d(2 * width, width, 1)
        self.detail = nn.Conv2d(12, width, 3, 1, 1)  # at S/2
        self.last = ModulatedBlock(width, width)
        self.narrow3 = nn.Conv2d(width, width // 2, 1)
        self.residual = nn.Conv2d(width // 2, 3, 3, 1, 1)  # at S
        for head in (self.flow, self.residual):  # the change starts at zero
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    @property
    def modulation_channels(self) -> list[int]:
        """Size of each modulated block's modulation, in order."""
        blocks: list[Any] = [*self.blocks, self.middle, self.last]
        return [block.modulation_channels for block in blocks]

    def forward(self, encoded: Decomposed, modulation: Tensor) -> Change:
        *coarse, middle, last = torch.split(modulation, self.modulation_channels, dim=1)
        x = encoded.identity  # N,C,S/8,S/8
        detail = F.pixel_unshuffle(encoded.faces, 2)
        for block, part in zip(self.blocks, coarse, strict=True):
            x = block(x, part)
        flow = MAX_FLOW * torch.tanh(self.flow(F.leaky_relu(x, 0.2)))
        x = self.middle(_upsample(self.narrow1(x)), middle)  # N,C/2,S/4,S/4
        x = _upsample(self.narrow2(x)) + self.detail(detail)  # N,C/4,S/2,S/2
        x = self.last(x, last)
        x = F.leaky_relu(_upsample(self.narrow3(x)), 0.2)  # N,C/8,S,S
        return Change(_scale_chroma(self.residual(x), CHROMA_SCALE), flow)


class IdentityPyramid(nn.Module):
    """Identity features -> features for the U-Net's first blocks and for its skip connection."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.fine = nn.Conv2d(config.channels, 3 * width, 1)
        self.coarse = nn.Sequential(
            ResidualBlock(3 * width, 4 * width, stride=2), ResidualBlock(4 * width, 4 * width)
        )

    def forward(self, identity: Tensor) -> tuple[Tensor, Tensor]:
        """N,C,S/8,S/8 -> N,4*width,S/16,S/16 and N,3*width,S/8,S/8."""
        fine = self.fine(identity)
        return self.coarse(fine), fine


class UNetDecoder(nn.Module):
    """Identity features, modulated at every layer -> the change to the target age.

    The displacement comes from the features at S/8. It moves these features and the face, so that
    the layers after it compute the residual at the places where it is added: a mouth that moves is
    not left behind at its old place.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.blocks = nn.ModuleList(
            [ModulatedBlock(4 * width, 4 * width) for _ in range(config.decoder_blocks)]
        )  # at S/16
        self.narrow8 = nn.Conv2d(4 * width, 3 * width, 1)
        self.block8 = ModulatedBlock(3 * width, 3 * width)
        self.flow = nn.Conv2d(3 * width, 2, 3, 1, 1)
        self.narrow4 = nn.Conv2d(3 * width, 2 * width, 1)
        self.detail4 = nn.Conv2d(48, 2 * width, 3, 1, 1)
        self.block4 = ModulatedBlock(2 * width, 2 * width)
        self.narrow2 = nn.Conv2d(2 * width, width, 1)
        self.detail2 = nn.Conv2d(12, width, 3, 1, 1)
        self.block2 = ModulatedBlock(width, width)
        self.narrow1 = nn.Conv2d(width, width // 2, 1)
        self.residual = nn.Conv2d(width // 2, 3, 3, 1, 1)
        for head in (self.flow, self.residual):  # the change starts at zero
            for parameter in head.parameters():
                nn.init.zeros_(parameter)

    @property
    def modulation_channels(self) -> list[int]:
        """Size of each modulated block's modulation, in order."""
        blocks: list[Any] = [*self.blocks, self.block8, self.block4, self.block2]
        return [block.modulation_channels for block in blocks]

    def forward(self, encoded: Decomposed, modulation: Tensor) -> Change:
        *coarse, part8, part4, part2 = torch.split(modulation, self.modulation_channels, dim=1)
        x = encoded.identity  # N,4w,S/16,S/16
        for block, part in zip(self.blocks, coarse, strict=True):
            x = block(x, part)
        x = self.block8(_upsample(self.narrow8(x)) + encoded.skip, part8)  # N,3w,S/8,S/8
        flow = self.flow(F.leaky_relu(x, 0.2)).float()
        flow = MAX_FLOW * torch.tanh(UNET_OUTPUT_SCALE * flow)
        x = displace(x, flow).to(x.dtype)
        faces = displace(encoded.faces, flow)
        x = _upsample(self.narrow4(x)) + self.detail4(F.pixel_unshuffle(faces, 4))
        x = self.block4(x, part4)  # N,2w,S/4,S/4
        x = _upsample(self.narrow2(x)) + self.detail2(F.pixel_unshuffle(faces, 2))
        x = self.block2(x, part2)  # N,w,S/2,S/2
        x = F.leaky_relu(_upsample(self.narrow1(x)), 0.2)  # N,w/2,S,S
        residual = UNET_OUTPUT_SCALE * self.residual(x)
        return Change(_scale_chroma(residual, UNET_CHROMA_SCALE), flow)


class FaceAgeModel(nn.Module):
    """The generator: changes and predicts the age of faces with one shared encoder."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        mobile = config.encoder == "mobilenet"
        self.encoder: nn.Module = MobileNet(last=ENCODER_LAYERS) if mobile else Encoder(config)
        if config.decomposition:
            self.decomposition = Decomposition(config.channels)
            self.classifier = MobileNetClassifier() if mobile else AgeClassifier(config)
        self.identity_projection = _make_projection(config)
        self.decoder: Decoder | UNetDecoder = (
            UNetDecoder(config) if config.decoder == "unet" else Decoder(config)
        )
        self.age_feature_cnn = AgeFeatureCNN(config, sum(self.decoder.modulation_channels))

    def forward(
        self, faces: Tensor, target_age: Tensor, source_age: Tensor | None = None
    ) -> Tensor:  # N,3,S,S -> N,3,S,S in [-1, 1]
        """The faces at their target ages: `encode`, `decode` and `apply_change` in one call.

        Args:
            faces: N,3,S,S in [-1, 1].
            target_age: (N,) years.
            source_age: (N,) years; required without the decomposition (RAGAN), else None.
        """
        return apply_change(faces, self.decode(self.encode(faces), target_age, source_age))

    def encode(self, faces: Tensor) -> Decomposed:  # N,3,S,S in [-1, 1]
        """Encode faces; `decode` then gives the change to any number of target ages."""
        features = self._features(faces)
        identity, age_features = features, torch.zeros_like(features)
        if self.config.decomposition:
            identity, age_features = self.decomposition(features)
        projected = self.identity_projection(identity)
        skip = identity[:, :0]
        if self.config.decoder == "unet":
            projected, skip = projected
        return Decomposed(projected, age_features, skip, faces)

    def decode(
        self, encoded: Decomposed, target_age: Tensor, source_age: Tensor | None = None
    ) -> Change:
        """The change of encoded faces to `target_age`.

        Args:
            encoded: N faces from `encode`.
            target_age: (N,) years.
            source_age: (N,) years; required without the decomposition (RAGAN), else None.
        """
        modulation = self.age_feature_cnn(encoded.identity, target_age, source_age)
        change: Change = self.decoder(encoded, modulation)
        return change

    def age_logits(self, faces: Tensor, *zooms: float) -> Tensor:  # N,3,R,R -> N,101
        """Logits over the years 0-100, from FFHQ crops in [-1, 1].

        Args:
            faces: crops, best at R = `config.classifier_crop`.
            zooms: above 1, a smaller part of the face fills the classifier's input; 1 if none is
                given. Of several, all faces at the first come first.
        """
        config = self.config
        size, window = config.classifier_size, config.classifier_window
        inner = [inner_face(faces, size, zoom, window) for zoom in zooms or (1.0,)]
        return self.classify(torch.cat(inner))

    def classify(self, inner: Tensor) -> Tensor:  # N,3,s,s -> N,101
        """Logits over the years 0-100, from windows that are cut out and resized already."""
        logits: Tensor = self.classifier(self.age_features(inner))
        return logits

    def age_features(self, faces: Tensor) -> Tensor:  # N,3,S,S -> N,C,h,w
        """The age part of the features; cheaper than `encode` where only it is needed."""
        features = self._features(faces)
        if not self.config.decomposition:
            return torch.zeros_like(features)
        age_features: Tensor = self.decomposition(features)[1]
        return age_features

    def _features(self, faces: Tensor) -> Tensor:  # N,3,S,S -> N,C,S/8,S/8
        mobile = self.config.encoder == "mobilenet"
        features: Tensor = self.encoder(faces if mobile else F.pixel_unshuffle(faces, 2))
        return features


def apply_change(
    faces: Tensor, change: Change, resampling: str = "bilinear"
) -> Tensor:  # N,3,R,R -> N,3,R,R in [-1, 1]
    """Apply a change to the faces it was computed for, at any resolution R.

    Args:
        faces: crops in [-1, 1]; R may differ from the model's S.
        change: N changes; to apply several changes to one face, the caller repeats the face.
        resampling: interpolation of the displaced crop: "bilinear", or "bicubic", which is slower
            and sharper.
    """
    side = faces.shape[-1]
    moved = displace(faces, change.flow, resampling)
    residual = change.residual.float()
    if residual.shape[-1] != side:
        residual = F.interpolate(
            residual, side, mode="bicubic", align_corners=False, antialias=True
        )
    return (moved + residual).clamp(-1, 1)


def displace(
    values: Tensor, flow: Tensor, resampling: str = "bilinear"
) -> Tensor:  # N,K,R,R and N,2,h,w -> N,K,R,R, float32
    """Sample pictures or features at positions displaced by `flow`, at any resolution R."""
    side = values.shape[-1]
    flow = F.interpolate(flow.float(), side, mode="bicubic", align_corners=False)
    axis = (torch.arange(side, device=values.device, dtype=torch.float32) * 2 + 1) / side - 1
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))  # 2,R,R
    grid = (grid + flow).permute(0, 2, 3, 1)
    return F.grid_sample(values.float(), grid, resampling, "border", align_corners=False)


def inner_face(
    faces: Tensor, size: int, zoom: float = 1.0, window: Window = INNER_WINDOW
) -> Tensor:  # N,3,R,R -> N,3,size,size
    """A window of FFHQ crops, by default their inner half, resized to `size` px.

    Args:
        zoom: above 1, a smaller part of the window.
    """
    side = faces.shape[-1]
    top, left, extent = window
    inner = round(side * extent / zoom)
    first_row = round(side * (top + extent / 2) - inner / 2)
    first_column = round(side * (left + extent / 2) - inner / 2)
    part = faces[..., first_row : first_row + inner, first_column : first_column + inner]
    if inner == size:
        return part
    return F.interpolate(part, size, mode="bilinear", align_corners=False, antialias=inner > size)


def window_grid(transform: Tensor, size: int, window: Window) -> Tensor:  # N,2,3 -> N,size,size,2
    """Sampling grid of a window in FFHQ crops, in the coordinates of `grid_sample`.

    Args:
        transform: similarity transforms of the window about its centre.
        size: side of the window, px.
    """
    device, count = transform.device, len(transform)
    top, left, side = window
    placed = torch.tensor(
        [[side, 0, 2 * left + side - 1], [0, side, 2 * top + side - 1], [0, 0, 1]], device=device
    )
    bottom = torch.tensor([0.0, 0, 1], device=device).expand(count, 1, 3)
    moved = placed @ torch.cat([transform, bottom], 1)
    return F.affine_grid(moved[:, :2], [count, 1, size, size], align_corners=False)


def group_log_probabilities(logits: Tensor) -> Tensor:  # N,101 -> N,10
    """Log-probabilities of the ten age groups: the sums of their years' probabilities."""
    log_p = logits.float().log_softmax(1)
    stops = (*GROUP_STARTS[1:], YEARS)
    parts = [log_p[:, a:b].logsumexp(1) for a, b in zip(GROUP_STARTS, stops, strict=True)]
    return torch.stack(parts, 1)


def expected_age(logits: Tensor) -> Tensor:  # N,101 -> (N,) years
    """The mean of the distribution over years."""
    years = torch.arange(YEARS, device=logits.device, dtype=torch.float32)
    return logits.float().softmax(1) @ years


def _make_projection(config: ModelConfig) -> nn.Module:
    """Identity features -> the decoder's input."""
    if config.decoder == "unet":
        return IdentityPyramid(config)
    width = 4 * config.width
    if config.channels == width:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(config.channels, width, 1),
        ResidualBlock(width, width),
        ResidualBlock(width, width),
    )


def _scale_chroma(residual: Tensor, scale: float) -> Tensor:
    lightness = residual.mean(1, keepdim=True)
    return lightness + scale * (residual - lightness)


def _stage(channels_in: int, channels_out: int, blocks: int) -> list[nn.Module]:
    rest = [ResidualBlock(channels_out, channels_out) for _ in range(blocks - 1)]
    return [ResidualBlock(channels_in, channels_out, stride=2), *rest]


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
