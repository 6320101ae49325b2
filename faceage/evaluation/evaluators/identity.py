"""The judges of identity: is it still the same person?"""

from pathlib import Path
from typing import Any, Literal, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from faceage.checkpoints import read_tensors
from faceage.errors import WeightsError
from faceage.evaluation.evaluators.session import open_session
from faceage.hub import file_sha256

Scaling = Literal["arcface", "imagenet"]

# Where such networks want image-left eye, image-right eye, nose and the corners of the mouth, in
# px of a picture of 112 px: the convention of ArcFace (Deng et al., CVPR 2019).
_SIDE = 112
_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
_BATCH = 32

# Levels are taken to (level - mean) / std, RGB.
_SCALINGS: dict[str, tuple[NDArray, NDArray]] = {
    "arcface": (np.full(3, 127.5), np.full(3, 127.5)),
    "imagenet": (
        255 * np.array([0.485, 0.456, 0.406]),
        255 * np.array([0.229, 0.224, 0.225]),
    ),
}
# Files known to want another scaling than ArcFace's, by their sha256.
_KNOWN: dict[str, Scaling] = {
    # MobileFaceNet of 128 numbers, trained on MS1M
    "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": "imagenet",
}
_HINT = "Give an ONNX face embedder of 112 px, such as mobilefacenet.onnx."


class IdentityJudge(Protocol):
    """Tells who is who, by embeddings of faces.

    Attributes:
        name: for the report.
        sha256: of its file, hex.
    """

    name: str
    sha256: str

    def embed(self, crops: NDArray[np.uint8], landmarks: NDArray) -> NDArray[np.float64]:
        """Embeddings of unit length, (N,D): the dot product of two is their cosine similarity.

        Where landmarks are nan, the embedding is nan.

        Args:
            crops: (N,R,R,3) RGB.
            landmarks: (N,5,2) px in the crop: image-left eye, image-right eye, nose, image-left
                and image-right corner of the mouth.
        """
        ...


class _Embedder:
    """What all do around their network, which subclasses run."""

    def __init__(self, path: Path, length: int, scaling: Scaling, batch: int = _BATCH) -> None:
        self.name = path.stem
        self.sha256 = file_sha256(path)
        self._length, self._batch = length, batch
        self._mean, self._std = _SCALINGS[scaling]

    def embed(self, crops: NDArray[np.uint8], landmarks: NDArray) -> NDArray[np.float64]:
        """Embeddings of unit length, (N,D), of crops (N,R,R,3) RGB with landmarks (N,5,2) px."""
        embeddings = np.full((len(crops), self._length), np.nan)
        seen = np.flatnonzero(np.isfinite(landmarks).all((1, 2)))
        for start in range(0, len(seen), self._batch):
            here = seen[start : start + self._batch]
            faces = np.stack([align(crops[i], landmarks[i]) for i in here])  # M,112,112,3
            images = ((faces - self._mean) / self._std).transpose(0, 3, 1, 2)
            found = self._run(np.ascontiguousarray(images, np.float32)).astype(np.float64)
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            embeddings[here] = found / np.maximum(lengths, 1e-12)
        return embeddings

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:  # N,3,112,112 -> N,D
        raise NotImplementedError


class OnnxIdentityJudge(_Embedder):
    """An embedder of the ArcFace kind in an ONNX file, run by onnxruntime on the CPU.

    Args:
        path: the ONNX file; input `N,3,112,112` RGB, output `N,D`; N may be fixed at 1.
        scaling: how the network wants its input: "arcface" (levels to [-1, 1], as insightface's
            networks), "imagenet" (ImageNet's mean and deviation), or None to go by the file: a
            file says nothing of it, and neither does its name (there are MobileFaceNets of both
            kinds), so that those known to want "imagenet" are told by their sha256, and all
            others are taken for "arcface". Told wrong, it errs a little more: of faces turned,
            blurred and recoloured, a MobileFaceNet then knew 95 % again instead of 98.

    Raises:
        ConfigError: onnxruntime is not installed.
        WeightsError: the file is missing, damaged, or another kind of network.
    """

    def __init__(self, path: str | Path, scaling: Scaling | None = None) -> None:
        path = Path(path)
        self._session = open_session(path, "identity judge", _HINT)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        found = [list(part.shape) for part in (*inputs, *outputs[:1])]
        if not _is_embedder(found):
            raise WeightsError(
                f"{path} is no embedder of faces of {_SIDE} px: its shapes are {found}.", _HINT
            )
        batch = 1 if found[0][0] == 1 else _BATCH
        scaling = scaling or _KNOWN.get(file_sha256(path), "arcface")
        self._input, self._output = inputs[0].name, outputs[0].name
        super().__init__(path, found[1][1], scaling, batch)

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        (found,) = self._session.run([self._output], {self._input: images})
        return found


class ArcFaceIdentityJudge(_Embedder):
    """The ArcFace (IR-SE50) that facexlib names `recognition_arcface_ir_se50.pth`.

    Args:
        path: that file; it is not fetched here.

    Raises:
        WeightsError: the file is missing, damaged, or another network.
    """

    def __init__(self, path: str | Path) -> None:
        from facexlib.recognition.arcface_arch import Backbone

        path, hint = Path(path), "Give facexlib's recognition_arcface_ir_se50.pth."
        if not path.is_file():
            raise WeightsError(f"No identity judge {path}.", hint)
        tensors = read_tensors(path)
        self._net = Backbone(num_layers=50, drop_ratio=0.6, mode="ir_se")
        try:
            self._net.load_state_dict(tensors)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:120]
            raise WeightsError(f"{path} is another network ({reason}).", hint) from None
        self._net.eval()
        super().__init__(path, 512, "arcface")

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return self._net(torch.from_numpy(images)).numpy()


def open_identity_judge(path: str | Path) -> IdentityJudge:
    """The judge in a file: facexlib's ArcFace where it ends with .pth, else an ONNX embedder.

    Raises:
        ConfigError: onnxruntime is needed and not installed.
        WeightsError: the file is missing, damaged, or no such network.
    """
    return ArcFaceIdentityJudge(path) if Path(path).suffix == ".pth" else OnnxIdentityJudge(path)


def align(crop: NDArray[np.uint8], landmarks: NDArray) -> NDArray[np.uint8]:
    """The face as ArcFace wants it, uint8 (112,112,3).

    Args:
        crop: (R,R,3) of any R.
        landmarks: (5,2) px in the crop.
    """
    matrix = similarity(landmarks, _TEMPLATE)
    # Warping to fewer pixels would skip some: warp to a whole multiple of them, then average.
    shrink = 1 / max(float(np.hypot(*matrix[:, 0])), 1e-3)
    times = int(np.clip(np.ceil(shrink - 1e-6), 1, 16))
    matrix = times * matrix
    matrix[:, 2] += (times - 1) / 2  # the centre of the first pixel is 0, 0 in both
    side = _SIDE * times
    own = np.ascontiguousarray(crop)  # OpenCV wants no mirrored views
    face = cv2.warpAffine(
        own, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if times > 1:
        face = cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(face, np.uint8)


def similarity(points: NDArray, wanted: NDArray) -> NDArray[np.float64]:
    """The turn, scale and shift that brings points nearest to those wanted (least squares).

    Args:
        points, wanted: (N,2).

    Returns:
        The map (2,3), from one to the other; never a mirroring.
    """
    # Read as complex numbers, a turn and a scale are one factor.
    a, b = (np.asarray(p, np.float64) @ [1, 1j] for p in (points, wanted))
    a_mean, b_mean = a.mean(), b.mean()
    a, b = a - a_mean, b - b_mean
    factor = np.vdot(a, b) / max(np.vdot(a, a).real, 1e-9)
    shift = b_mean - factor * a_mean
    x, y = factor.real, factor.imag
    return np.array([[x, -y, shift.real], [y, x, shift.imag]])


def _is_embedder(shapes: list[list[Any]]) -> bool:
    """Of the input and the output; a size that a file leaves open is no whole number."""
    if [len(shape) for shape in shapes] != [4, 2] or not isinstance(shapes[1][1], int):
        return False
    sizes = zip(shapes[0][1:], (3, _SIDE, _SIDE), strict=True)
    fixed = shapes[0][0] if isinstance(shapes[0][0], int) else 1
    return fixed == 1 and all(a == b for a, b in sizes if isinstance(a, int))
