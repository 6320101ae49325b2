"""Training of the head segmenter."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from noise_dataset import write_noise

from faceage.cli import app
from faceage.models.head_segmenter import SIZE, HeadSegmenter
from faceage.training import head_segmenter
from faceage.training.head_segmenter import (
    LabelledHeads,
    SegmenterConfig,
    export_onnx,
    measure_covered_as_head,
    measure_iou,
    train_head_segmenter,
)

pytest.importorskip("onnx", reason="the export needs onnx")


class LeftHalf:
    """A parser for which the left half of every picture is hair."""

    calls = 0

    def __init__(self, path: Path) -> None:
        pass

    def parse(self, face: np.ndarray) -> np.ndarray:
        type(self).calls += 1
        labels = np.zeros((448, 448), np.uint8)
        labels[:, :224] = 17
        return labels


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SegmenterConfig:
    (tmp_path / "data").mkdir()
    write_noise(tmp_path / "data")
    monkeypatch.setattr(head_segmenter, "FaceParser", LeftHalf)
    monkeypatch.setattr(LeftHalf, "calls", 0)
    data = [str(tmp_path / "data")]
    return SegmenterConfig(data, Path("parser"), tmp_path / "run", images=8, batch_size=4)


def test_training_writes_a_network_for_opencv(config: SegmenterConfig) -> None:
    path = train_head_segmenter(config, "cpu")
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(np.zeros((1, 3, SIZE, SIZE), np.float32))
    assert network.forward().shape == (1, 1, SIZE, SIZE)
    stats = (config.out / "stats.jsonl").read_text()
    assert "val/iou" in stats
    assert "val/iou_covered" in stats


def test_labels_are_computed_once(config: SegmenterConfig) -> None:
    first = train_head_segmenter(config, "cpu").read_bytes()
    calls = LeftHalf.calls
    assert calls > 0
    assert train_head_segmenter(config, "cpu").read_bytes() == first
    assert LeftHalf.calls == calls


def test_opencv_computes_what_torch_computes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HeadSegmenter().eval()
    export_onnx(model, tmp_path / "head.onnx")
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "head.onnx"))
    faces = torch.rand(1, 3, SIZE, SIZE) * 2 - 1
    network.setInput(faces.numpy())
    with torch.inference_mode():
        expected = model(faces).sigmoid().numpy()
    np.testing.assert_allclose(network.forward(), expected, atol=1e-4)


class RightHalf(HeadSegmenter):
    """A network for which the right half of every picture is head."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        logits = -torch.ones(len(faces), 1, SIZE, SIZE)
        logits[..., SIZE // 2 :] = 1
        return logits


def test_iou_by_hand() -> None:
    heads = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    heads[0, :, SIZE // 2 :] = 255  # all of the prediction
    heads[1, :, SIZE // 4 :] = 255  # two thirds of the label
    images = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
    faces = LabelledHeads(images, heads, torch.tensor([[0.0, 0, 1, 1]] * 2))
    assert measure_iou(RightHalf(), faces, torch.device("cpu")) == pytest.approx((1 + 2 / 3) / 2)


def test_covered_pixels_by_hand() -> None:
    heads = torch.full((1, SIZE, SIZE), 255, dtype=torch.uint8)
    remaining = heads.clone()
    remaining[:, :, SIZE // 4 : 5 * SIZE // 8] = 0  # a third of it in the right half
    images, valid = torch.zeros(1, SIZE, SIZE, 3, dtype=torch.uint8), torch.tensor([[0.0, 0, 1, 1]])
    faces, covered = (LabelledHeads(images, h, valid) for h in (heads, remaining))
    model, device = RightHalf(), torch.device("cpu")
    assert measure_covered_as_head(model, faces, covered, device) == pytest.approx(1 / 3)
    assert measure_covered_as_head(model, faces, faces, device) == 0


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    data = str(tmp_path / "nowhere")
    arguments = ["train-head-segmenter", "--data", data, "--parser", "x.tflite"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert result.exit_code != 0
    assert "No dataset folder" in result.output
