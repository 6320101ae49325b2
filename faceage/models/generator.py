"""The generator: encoder, attention decomposition, age classifier and decoder.

Kim & Park, "Facial Age Classification and Synthesis using Feature Decomposition", JBE 28(2), 2023.
Shapes stand on the right margin; `h = w = S / 8`; ages are years. This module does not depend on
files, devices, the command line or training.

Differences from the paper, and their reasons:
- The decoder outputs a change instead of a face (see `decoders`).
- The classifier outputs a distribution over the years 0-100. Its sums over groups are the paper's
  ten classes; its median is a numeric age.
- The classifier takes a part of the crop, at a finer scale than the synthesis: clothes and
  background do not determine age, and wrinkles need resolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from faceage.ages import GROUP_STARTS, YEARS
from faceage.models.architecture import ModelConfig
from faceage.models.decoders import (
    AgeFeatureCNN,
    Change,
    Decoder,
    Decomposed,
    UNetDecoder,
    displace,
)
from faceage.models.encoders import (
    ENCODER_LAYERS,
    AgeClassifier,
    Decomposition,
    Encoder,
    MobileNetClassifier,
    make_projection,
)
from faceage.models.fine_level import FineLevel
from faceage.models.mobilenet import MobileNet
from faceage.models.windows import inner_face

# The parts of the model that do not depend on the decoder; they determine the predicted ages.
SHARED = ("encoder", "decomposition", "classifier")


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
        self.identity_projection = make_projection(config)
        self.decoder: Decoder | UNetDecoder = (
            UNetDecoder(config) if config.decoder == "unet" else Decoder(config)
        )
        self.age_feature_cnn = AgeFeatureCNN(config, sum(self.decoder.modulation_channels))
        self.fine_level = FineLevel() if config.fine_level else None

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

    def refine(self, faces: Tensor, change: Change) -> Change:
        """A change with the details that the fine level adds.

        Args:
            faces: N,3,4S,4S in [-1, 1], the crops for which the change was computed.
            change: of N faces, from `decode`.

        Returns:
            The change with a residual N,3,4S,4S.

        Raises:
            ValueError: the model has no fine level.
        """
        if self.fine_level is None:
            raise ValueError("this model has no fine level")
        residual = self.fine_level(displace(faces, change.flow), change.residual)
        return change._replace(residual=residual)

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
