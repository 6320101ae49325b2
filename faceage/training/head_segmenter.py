"""Training of the head segmenter on the labels of a face parser.

The parser's labels are computed once and kept in the run directory; the training itself takes some
minutes. The result is an ONNX file, which OpenCV executes whenever faces are aged.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from faceage.data.augmentation import random_similarity, recolour
from faceage.data.datasets import Dataset, make_labels, open_dataset
from faceage.data.degradation import degrade
from faceage.data.occlusion import occlude
from faceage.devices import pick_device
from faceage.errors import ConfigError
from faceage.faces.parsing import HEAD, FaceParser
from faceage.files import replace_file
from faceage.imaging.conversion import to_tensor
from faceage.models.head_segmenter import SIZE, HeadSegmenter
from faceage.training.logging import Progress


@dataclass(frozen=True)
class SegmenterConfig:
    """Options of a training.

    Attributes:
        data: names or folders of labelled face crops; their train and val splits are used.
        parser: the file of a `FaceParser`.
        out: run directory, for the labels, the statistics and the result.
        faces: most faces of a dataset that the parser labels.
        images: length of the training, in images seen.
        batch_size: images of a step.
        lr: highest learning rate; it falls to zero along a cosine.
        seed: of all random numbers.
    """

    data: Sequence[str]
    parser: Path
    out: Path
    faces: int = 6000
    images: int = 150_000
    batch_size: int = 32
    lr: float = 3e-3
    seed: int = 0


@dataclass
class LabelledHeads:
    """Faces and where their heads are.

    Attributes:
        images: N,S,S,3 uint8.
        heads: N,S,S uint8, the fraction of a pixel that is head, times 255.
        valid: N,4, x0 y0 x1 y1 as fractions of the side: the picture without its padding.
    """

    images: Tensor
    heads: Tensor
    valid: Tensor

    def __len__(self) -> int:
        return len(self.images)


def train_head_segmenter(config: SegmenterConfig, device: str = "auto") -> Path:
    """Train a head segmenter.

    Returns:
        The ONNX file, `head-segmenter.onnx` in the run directory.

    Raises:
        ConfigError: there is no such device, or LiteRT or onnx is not installed.
        DataError: a dataset or a picture is missing or damaged.
        WeightsError: the parser cannot be read.
    """
    _check_onnx()
    where = pick_device(device)
    progress = Progress(config.images, config.out)
    train, val = (_label_split(config, split, progress) for split in ("train", "val"))
    torch.manual_seed(config.seed)
    model = HeadSegmenter().to(where)
    optimiser = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=0.01)
    seen = 0
    with progress:
        while seen < config.images:
            for group in optimiser.param_groups:
                group["lr"] = config.lr * (0.5 + 0.5 * math.cos(math.pi * seen / config.images))
            index = torch.randint(len(train), (config.batch_size,))
            loss = _step_loss(model, train, index, where)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            seen += config.batch_size
            progress.update(seen, {"cross_entropy": loss.detach()})
    model.eval()
    covered = cover_faces(val, config.seed)
    progress.record(
        seen,
        {
            "val/iou": measure_iou(model, val, where),
            "val/iou_covered": measure_iou(model, covered, where),
            "val/covered_as_head": measure_covered_as_head(model, val, covered, where),
        },
    )
    path = config.out / "head-segmenter.onnx"
    return replace_file(path, lambda temporary: export_onnx(model.cpu(), temporary))


def export_onnx(model: HeadSegmenter, path: Path) -> None:
    """Write the network, with the sigmoid, as ONNX for a batch of one."""
    network = torch.nn.Sequential(model, torch.nn.Sigmoid()).eval()
    torch.onnx.export(
        network, (torch.zeros(1, 3, SIZE, SIZE),), str(path), opset_version=17, dynamo=False
    )


@torch.inference_mode()
def measure_iou(model: HeadSegmenter, faces: LabelledHeads, device: torch.device) -> float:
    """Intersection over union of the predicted and the labelled heads, mean over the faces."""
    values = []
    for index in torch.split(torch.arange(len(faces)), 64):
        predicted = model(to_tensor(faces.images[index], device))[:, 0] > 0
        labelled = (faces.heads[index] > 127).to(device)
        both = (predicted & labelled).sum((1, 2))
        values.append(both / (predicted | labelled).sum((1, 2)).clamp(min=1))
    return float(torch.cat(values).mean())


@torch.inference_mode()
def measure_covered_as_head(
    model: HeadSegmenter, faces: LabelledHeads, covered: LabelledHeads, device: torch.device
) -> float:
    """The fraction of the covered pixels of the heads that is taken for head.

    Args:
        covered: `faces` behind objects, as from `cover_faces`.
    """
    taken = hidden = 0
    for index in torch.split(torch.arange(len(faces)), 64):
        predicted = model(to_tensor(covered.images[index], device))[:, 0].cpu() > 0
        behind = (faces.heads[index] > 127) & (covered.heads[index] <= 127)
        taken += int((predicted & behind).sum())
        hidden += int(behind.sum())
    return taken / max(hidden, 1)


def cover_faces(faces: LabelledHeads, seed: int = 0) -> LabelledHeads:
    """The same faces, each behind a random object that is not part of its head."""
    torch.manual_seed(seed)
    images, heads = [], []
    for index in torch.split(torch.arange(len(faces)), 64):
        labelled = faces.heads[index][:, None].float() / 255
        face, head = occlude(to_tensor(faces.images[index]), labelled, fraction=1)
        images.append(((face.permute(0, 2, 3, 1) + 1) * 127.5).round().byte())
        heads.append((head[:, 0] * 255).round().byte())
    return LabelledHeads(torch.cat(images), torch.cat(heads), faces.valid)


def _step_loss(
    model: HeadSegmenter, faces: LabelledHeads, index: Tensor, device: torch.device
) -> Tensor:
    """The cross-entropy on augmented faces, some of them covered, without padding."""
    images = to_tensor(faces.images[index], device)
    heads = faces.heads[index].to(device)[:, None].float() / 255
    valid = faces.valid[index].to(device)[:, None, None] * 2 - 1
    transform = random_similarity(len(index), device, angle=15, zoom=0.15, shift=0.05)
    grid = F.affine_grid(transform, [len(index), 1, SIZE, SIZE], align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    heads = F.grid_sample(heads, grid, padding_mode="border", align_corners=False)
    inside = ((grid >= valid[..., :2]) & (grid <= valid[..., 2:])).all(-1)[:, None].float()
    images, heads = occlude(images, heads)
    chosen = torch.randperm(len(index), device=device)[: len(index) // 2]
    images = recolour(images, strength=0.3)
    images[chosen] = degrade(images[chosen])
    logits = model(images.clamp(-1, 1))
    loss = F.binary_cross_entropy_with_logits(logits, heads, reduction="none")
    return (loss * inside).sum() / inside.sum()


def _label_split(config: SegmenterConfig, split: str, progress: Progress) -> LabelledHeads:
    """The labelled faces of one split, from the run directory if they are there."""
    parts = []
    for number, name in enumerate(config.data):
        dataset = open_dataset(name, split)
        generator = np.random.default_rng((config.seed, number))
        most = config.faces if split == "train" else config.faces // 10
        chosen = np.sort(generator.permutation(len(dataset))[:most])
        file = config.out / f"heads-{split}-{number}.npz"
        images, heads = _read_labels(file, len(chosen)) or _label(
            config, dataset, chosen, file, progress
        )
        valid = make_labels([dataset.samples[i] for i in chosen]).valid
        parts.append(LabelledHeads(torch.from_numpy(images), torch.from_numpy(heads), valid))
    return LabelledHeads(
        *(torch.cat([getattr(part, n) for part in parts]) for n in ("images", "heads", "valid"))
    )


def _read_labels(file: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
    if not file.is_file():
        return None
    with np.load(file) as arrays:
        images, heads = arrays["images"], arrays["heads"]
    return (images, heads) if len(images) == count else None


def _label(
    config: SegmenterConfig,
    dataset: Dataset,
    chosen: NDArray[np.int64],
    file: Path,
    progress: Progress,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Label the chosen faces with the parser, and write them to `file`."""
    parser = FaceParser(config.parser)
    images = np.empty((len(chosen), SIZE, SIZE, 3), np.uint8)
    heads = np.empty((len(chosen), SIZE, SIZE), np.uint8)
    with progress.task(f"parsing {dataset.name}", len(chosen)) as advance:
        for row, index in enumerate(chosen):
            face = dataset.read_crop(int(index), 2 * SIZE)
            head = np.isin(parser.parse(face), HEAD).astype(np.float32) * 255
            images[row] = cv2.resize(face, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
            heads[row] = cv2.resize(head, (SIZE, SIZE), interpolation=cv2.INTER_AREA).round()
            advance(1)
    dataset.close()

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, images=images, heads=heads)

    replace_file(file, write)
    return images, heads


def _check_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Exporting the head segmenter needs onnx.", "Install it: pip install onnx"
        ) from None
