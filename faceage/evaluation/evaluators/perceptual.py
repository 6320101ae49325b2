"""The judge of what pictures look like: LPIPS, and features for distances between sets."""

import warnings
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from faceage.checkpoints import read_tensors
from faceage.errors import ConfigError, WeightsError
from faceage.hub import file_sha256
from faceage.models.generator import inner_face

TORCHVISION = "torchvision"

_BATCH = 32
_FEATURES_SIDE = 128  # px of the inner face: what it has in a crop of 256 px
_HINT = f"Give torchvision's alexnet, its convolutions as .safetensors, or {TORCHVISION!r}."


class PerceptualJudge(Protocol):
    """Tells how different two pictures look, and what a picture looks like.

    Attributes:
        name: for the report.
        sha256: of its file, hex.
    """

    name: str
    sha256: str

    def distances(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
        """How different pictures look in pairs, (N,); 0 is the same. Of (N,R,R,3) RGB twice."""
        ...

    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """What the inner faces look like, (N,D), of FFHQ crops (N,R,R,3) RGB."""
        ...


class LpipsJudge:
    """LPIPS 0.1 on AlexNet (Zhang et al., CVPR 2018), on the CPU.

    The `lpips` package carries the weighting of the features, not AlexNet itself.

    Args:
        backbone: AlexNet's convolutions under torchvision's names (`features.N.weight`), as
            .safetensors or .pth; or "torchvision", to let torchvision download them.

    Raises:
        ConfigError: lpips is not installed.
        WeightsError: the file is missing, damaged, or another network, or cannot be downloaded.
    """

    name = "LPIPS 0.1 (AlexNet)"

    def __init__(self, backbone: str | Path) -> None:
        path = None if str(backbone) == TORCHVISION else Path(backbone)
        if path and not path.is_file():
            raise WeightsError(f"No perceptual judge {path}.", _HINT)
        try:
            import lpips
        except ImportError:
            raise ConfigError(
                "The perceptual judge needs lpips, which is not installed.",
                "Install it with: pip install 'faceage[evaluate]'",
            ) from None
        path = path or _downloaded()
        tensors = read_tensors(path)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # lpips calls torchvision in an old manner
            self._lpips = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        self._lpips.eval().requires_grad_(False)
        for name, own in self._lpips.net.state_dict().items():
            key = f"features.{name.partition('.')[2]}"  # slice2.3.weight is features.3.weight
            if key not in tensors or tensors[key].shape != own.shape:
                problem = "has another shape" if key in tensors else "is missing"
                raise WeightsError(f"{path} does not hold AlexNet: {key} {problem}.", _HINT)
            own.copy_(tensors[key])
        self.sha256 = file_sha256(path)

    @torch.inference_mode()
    def distances(self, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
        """LPIPS of pictures in pairs, (N,), of (N,R,R,3) RGB twice."""
        parts = [np.empty(0)]
        for start in range(0, len(a), _BATCH):
            x, y = (_tensor(pictures[start : start + _BATCH]) for pictures in (a, b))
            parts.append(self._lpips(x, y).flatten().double().numpy())
        return np.concatenate(parts)

    @torch.inference_mode()
    def features(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """AlexNet's last convolution, averaged over the inner face: (N,256).

        The inner face (`faceage.model.inner_face`) is picture in every crop. Whole crops also
        show what is beyond a photo's border, and who took the photo shows in that: on them, two
        datasets at one age came out five times as far apart as the young and the old of one
        dataset; on inner faces less than half as far. Of the five layers, the last is the one
        that differs most between ages, measured by how much it differs between draws.

        Args:
            crops: FFHQ crops (N,R,R,3) RGB.
        """
        parts = [np.empty((0, 256))]
        for start in range(0, len(crops), _BATCH):
            faces = inner_face(_tensor(crops[start : start + _BATCH]), _FEATURES_SIDE)
            last = self._lpips.net(self._lpips.scaling_layer(faces))[-1]  # N,256,7,7
            parts.append(last.mean((2, 3)).double().numpy())
        return np.concatenate(parts)


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:  # N,R,R,3 -> N,3,R,R in [-1, 1]
    own = np.array(pictures)  # torch wants neither mirrored nor read-only arrays
    return torch.from_numpy(own).permute(0, 3, 1, 2).float() / 127.5 - 1


def _downloaded() -> Path:
    """AlexNet, as torchvision keeps it in its cache; torch checks what it fetches."""
    from torchvision.models import AlexNet_Weights

    url = AlexNet_Weights.IMAGENET1K_V1.url
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix="7be5be79", progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"Cannot fetch {url} ({error}).", _HINT) from None
    return path
