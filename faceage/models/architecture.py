"""The architecture of a model, as it is stored in every weights file."""

from dataclasses import dataclass
from typing import Any

from faceage.models.fine_level import FINE_SCALE
from faceage.models.windows import CLASSIFIER_WINDOWS, Window


@dataclass(frozen=True)
class ModelConfig:
    """The architecture; stored in every weights file.

    Attributes:
        size: side S of the crops whose age is changed, px.
        classifier_size: side of the classifier's input, `classifier_window`, px.
        width: channels after the stem; the decoder's input has 4 * width.
        encoder_blocks: residual blocks of each of the encoder's two stages.
        classifier_blocks: residual blocks of each of the classifier's two stages.
        decoder_blocks: modulated blocks at the decoder's lowest resolution: S / 8, or S / 16 of the
            U-Net.
        encoder: "residual", or "mobilenet", the first layers of a pretrained face backbone, with
            its other layers as the classifier.
        decomposition: split the features by attention and classify the age part. False gives
            RAGAN: the decoder takes all features, there is no classifier, and the modulation also
            depends on the source age.
        decoder: "residual", or "unet", which has skip connections at every resolution and displaces
            the features along with the face.
        fine_level: a network that adds details to a change at four times the size (`fine_level`).
        desaturation: the U-Net's change can also remove chroma of the face, in proportion to it.
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
    fine_level: bool = False
    desaturation: bool = False

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
    def fine_size(self) -> int:
        """Side of the crops at which the fine level works, px."""
        return FINE_SCALE * self.size

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
