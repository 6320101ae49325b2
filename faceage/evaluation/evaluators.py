"""Evaluators: independent networks that measure results, on the CPU.

They are never used in training: a network that the training optimised against cannot measure its
result. So nothing that the training imports may import this module (a contract of import-linter).
Each has a `name` for the report and the `sha256` of its file. The constructors raise WeightsError
for a wrong file, and ConfigError where the extra `evaluate` is missing.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torchvision.models import inception_v3

from faceage.checkpoints import read_tensors
from faceage.errors import WeightsError
from faceage.evaluation.common import CROP, Floats, Pixels, import_extra, map_batches
from faceage.hub import file_sha256
from faceage.imaging.conversion import resize_images, to_tensor
from faceage.models.windows import inner_face

MAX_ESTIMATE = 80  # years: age-v1's highest class

# Input of age-v1: a window of a crop of 256 px (x0, y0, x1, y1), its size in px, and the scaling of
# its levels (mean and divisor, RGB).
_WINDOW, _AGE_SIZE = (45.3, 69.6, 213.1, 237.3), (64, 64)
_AGE_MEAN, _AGE_SCALE = np.array([122.782, 117.001, 104.298]), 256
_YEARS = np.array([0.25, *range(1, MAX_ESTIMATE + 1)])  # the first class is the first half year

# Input of an ArcFace network (Deng et al., CVPR 2019): its side, and image-left eye, image-right
# eye, nose and the corners of the mouth, px; mean and deviation of its levels, RGB.
_SIDE = 112
TEMPLATE = np.array(
    [38.2946, 51.6963, 73.5318, 51.5014, 56.0252, 71.7366, 41.5493, 92.3655, 70.7299, 92.2041]
).reshape(5, 2)
_ARCFACE = np.full(3, 127.5), np.full(3, 127.5)
_IMAGENET = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
# Files whose input is scaled otherwise, by their sha256, as neither file nor name says it.
KNOWN_SCALINGS = {  # a MobileFaceNet of 128 numbers, trained on MS1M
    "b7120c095d60094f28a4a54ba6a8bf51b297a6273fb40ef6350dfec1f63d9507": _IMAGENET
}

_FEATURES_SIDE = 128  # px of the inner face in a crop of 256 px


class AgeEvaluator:
    """`age-v1`, an ONNX file: a distribution over the years 0-80, whose mean is the estimate."""

    def __init__(self, path: str | Path) -> None:
        path, hint = Path(path), "Give the path of age-v1.onnx."
        self._session, shapes = _open_onnx(path, "age evaluator", hint)
        if [shape[1:] for shape in shapes] != [[3, *_AGE_SIZE], [len(_YEARS)]]:
            raise WeightsError(f"{path} is not age-v1: its shapes are {shapes}.", hint)
        self.name, self.sha256 = path.stem, file_sha256(path)

    def ages(self, crops: Pixels) -> Floats:
        """Ages in years, (N,), of FFHQ crops (N,R,R,3) RGB."""

        def run(part: Pixels) -> Floats:
            # All crops at one size, so that the result does not depend on it.
            images, area = map(Image.fromarray, resize_images(part, CROP)), Image.Resampling.BOX
            faces = [np.asarray(image.resize(_AGE_SIZE, area, _WINDOW)) for image in images]
            scaled = (np.stack(faces) - _AGE_MEAN) / _AGE_SCALE
            return np.asarray(_run_onnx(self._session, scaled) @ _YEARS)

        return map_batches(run, crops, size=64)


class IdentityEvaluator:
    """A face embedder of the ArcFace kind, an ONNX file: `N,3,112,112` -> `N,D`; N may be 1."""

    def __init__(self, path: str | Path) -> None:
        path, hint = Path(path), "Give a face embedder of 112 px, such as mobilefacenet.onnx."
        self._session, shapes = _open_onnx(path, "identity evaluator", hint)
        # A size that a file leaves open is no number.
        sizes = [[size if isinstance(size, int) else 0 for size in shape] for shape in shapes]
        fits = [len(shape) for shape in sizes] == [4, 2] and sizes[1][1] > 0
        if not fits or sizes[0][0] > 1 or sizes[0][1:] != [3, _SIDE, _SIDE]:
            raise WeightsError(f"{path} is no face embedder of {_SIDE} px: {shapes}.", hint)
        self._batch, self._length = sizes[0][0] or 32, sizes[1][1]
        self.name, self.sha256 = path.stem, file_sha256(path)

    def embed(self, crops: Pixels, landmarks: Floats) -> Floats:
        """Embeddings of unit length, (N,D): the dot product of two is their cosine similarity.

        Args:
            crops: (N,R,R,3) RGB.
            landmarks: (N,5,2) px in the crop: image-left eye, image-right eye, nose, image-left
                and image-right corner of the mouth. Where they are nan, the embedding is nan.
        """
        mean, std = KNOWN_SCALINGS.get(self.sha256, _ARCFACE)

        def run(part: Pixels, points: Floats) -> Floats:
            faces = np.stack([align(*pair) for pair in zip(part, points, strict=True)])
            found = _run_onnx(self._session, (faces - mean) / std)
            lengths = np.linalg.norm(found, axis=1, keepdims=True)
            return np.asarray(found / np.maximum(lengths, 1e-12))

        embeddings = np.full((len(crops), self._length), np.nan)
        known = np.isfinite(landmarks).all((1, 2))
        size, shape = self._batch, (self._length,)
        embeddings[known] = map_batches(run, crops[known], landmarks[known], size=size, shape=shape)
        return embeddings


class PerceptualEvaluator:
    """LPIPS 0.1 on torchvision's AlexNet (Zhang et al., CVPR 2018).

    The file has torchvision's AlexNet, or its convolutions (`features.N.weight`): .safetensors or
    .pth. The `lpips` package has the weighting of the features.
    """

    name = "LPIPS 0.1 (AlexNet)"

    def __init__(self, path: str | Path) -> None:
        path, hint = Path(path), "Give torchvision's alexnet."
        _check_file(path, "perceptual evaluator", hint)
        lpips, tensors = import_extra("lpips", "The perceptual evaluator"), read_tensors(path)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # lpips uses an outdated call of torchvision
            self._lpips = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
        # slice2.3.weight is torchvision's features.3.weight.
        names = {
            name: f"features.{name.partition('.')[2]}" for name in self._lpips.net.state_dict()
        }
        chosen = {name: tensors[key] for name, key in names.items() if key in tensors}
        _load(self._lpips.net, chosen, path, hint)
        self._lpips.eval()
        self.sha256 = file_sha256(path)

    @torch.inference_mode()
    def distances(self, a: Pixels, b: Pixels) -> Floats:
        """LPIPS of pictures in pairs, (N,), of (N,R,R,3) RGB twice; 0 is equal."""
        return map_batches(lambda x, y: self._lpips(to_tensor(x), to_tensor(y)).flatten(), a, b)

    def features(self, crops: Pixels) -> Floats:
        """AlexNet's last convolution, averaged over the inner face: (N,256).

        The inner face (`faceage.models.generator.inner_face`) is never padding and depends less on
        the dataset: two datasets at one age are five times as far apart as the young and the old of
        one dataset on whole crops, and less than half as far on inner faces.
        """
        return self._average(crops, lambda part: inner_face(to_tensor(part), _FEATURES_SIDE))

    def crop_features(self, crops: Pixels) -> Floats:
        """The same of the whole crop at 256 px, which shows the hair: (N,256)."""
        return self._average(crops, lambda part: to_tensor(resize_images(part, CROP)))

    @torch.inference_mode()
    def _average(self, crops: Pixels, prepare: Callable[[Pixels], Tensor]) -> Floats:
        def run(part: Pixels) -> Tensor:
            scaled = self._lpips.scaling_layer(prepare(part))
            return torch.mean(self._lpips.net(scaled)[-1], (2, 3))

        return map_batches(run, crops, shape=(256,))


class InceptionEvaluator:
    """torchvision's Inception v3, trained on ImageNet, for FID and KID: .pth or .safetensors."""

    name = "Inception v3 (torchvision)"

    def __init__(self, path: str | Path) -> None:
        path, hint = Path(path), "Give torchvision's inception_v3."
        _check_file(path, "Inception", hint)
        tensors = {k: v for k, v in read_tensors(path).items() if not k.startswith(("Aux", "fc"))}
        # The weights are of input in [-1, 1], to which transform_input would convert ImageNet's.
        self._net = inception_v3(aux_logits=False, init_weights=False, transform_input=False)
        self._net.fc = nn.Identity()
        _load(self._net, tensors, path, hint)
        self.sha256 = file_sha256(path)

    @torch.inference_mode()
    def features(self, crops: Pixels) -> Floats:
        """The pooled features of whole crops, (N,2048), of FFHQ crops (N,R,R,3) RGB.

        Crops are resized as by clean-fid (Parmar et al., CVPR 2022): each channel as floats, by
        Pillow's bicubic interpolation with antialiasing.
        """

        def resize(channel: Pixels) -> NDArray[np.float32]:
            image = Image.fromarray(channel.astype(np.float32))
            return np.asarray(image.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)

        def run(part: Pixels) -> Any:
            images = np.stack([[resize(crop[..., c]) for c in range(3)] for crop in part])
            return self._net(torch.from_numpy(images) / 127.5 - 1)

        return map_batches(run, crops, shape=(2048,))


@dataclass(frozen=True)
class Evaluators:
    """The evaluators of a run; None leaves out what it would measure."""

    age: AgeEvaluator | None = None
    identity: IdentityEvaluator | None = None
    perceptual: PerceptualEvaluator | None = None
    inception: InceptionEvaluator | None = None


def align(crop: Pixels, landmarks: Floats) -> Pixels:
    """The face aligned as ArcFace's input, uint8 (112,112,3), of a crop (R,R,3) of any R."""
    matrix = similarity(landmarks, TEMPLATE)
    # Warping to fewer pixels would skip some: warp to a whole multiple of them, then average.
    shrink = 1 / max(float(np.hypot(*matrix[:, 0])), 1e-3)
    times = int(np.clip(np.ceil(shrink - 1e-6), 1, 16))
    matrix = times * matrix
    matrix[:, 2] += (times - 1) / 2  # the centre of the first pixel is 0, 0 in both
    own, size = np.ascontiguousarray(crop), (_SIDE * times, _SIDE * times)
    face = cv2.warpAffine(
        own, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if times > 1:
        face = cv2.resize(face, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(face, np.uint8)


def similarity(points: Floats, wanted: Floats) -> Floats:
    """The map (2,3) of rotation, scale and shift, points (N,2) to others, by least squares."""
    # As complex numbers, a rotation and a scale are one factor.
    a, b = (np.asarray(p, np.float64) @ [1, 1j] for p in (points, wanted))
    a_mean, b_mean = a.mean(), b.mean()
    a, b = a - a_mean, b - b_mean
    factor = np.vdot(a, b) / max(np.vdot(a, a).real, 1e-9)
    shift = b_mean - factor * a_mean
    x, y = factor.real, factor.imag
    return np.array([[x, -y, shift.real], [y, x, shift.imag]])


def _check_file(path: Path, evaluator: str, hint: str) -> None:
    if not path.is_file():
        raise WeightsError(f"No {evaluator} {path}.", hint)


def _load(net: nn.Module, tensors: dict[str, Tensor], path: Path, hint: str) -> None:
    """Load exactly these weights, for evaluation."""
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path} is another network ({reason}).", hint) from None
    net.eval().requires_grad_(False)


def _open_onnx(path: Path, evaluator: str, hint: str) -> tuple[Any, list[list[Any]]]:
    """An onnxruntime session on the CPU, and the shapes of its inputs and of its first output."""
    _check_file(path, evaluator, hint)
    onnxruntime = import_extra("onnxruntime", f"The {evaluator}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # onnxruntime has its own threads, which ignore this variable; 0 is its own choice.
    threads = os.environ.get("OMP_NUM_THREADS", "")
    options.intra_op_num_threads = int(threads) if threads.isdigit() else 0
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # each fault has a private class of its own
        reason = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path} is not a readable ONNX file ({reason}).", hint) from None
    parts = (*session.get_inputs(), *session.get_outputs()[:1])
    return session, [list(part.shape) for part in parts]


def _run_onnx(session: Any, faces: Floats) -> Floats:  # N,R,R,3 -> N,D
    images = np.ascontiguousarray(faces.transpose(0, 3, 1, 2), np.float32)
    inputs = {session.get_inputs()[0].name: images}
    found: NDArray[np.float32] = session.run([session.get_outputs()[0].name], inputs)[0]
    return found.astype(np.float64)
