"""Fixtures: a real face, a tiny model with random weights, the command line."""

import hashlib
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from faceage.checkpoints import save_weights
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel

EXAMPLES = Path(__file__).parent.parent / "examples"

TINY = ModelConfig(
    size=32,
    classifier_size=32,
    width=16,
    encoder_blocks=1,
    classifier_blocks=1,
    decoder_blocks=1,
)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """SIGINT works in tests also where a shell started them in the background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests away from the user's cache."""
    monkeypatch.setenv("FACEAGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def astronaut() -> Path:
    """A portrait (512x512) with one face in its upper half."""
    return EXAMPLES / "astronaut.jpg"


@pytest.fixture(scope="session")
def portrait(astronaut: Path) -> np.ndarray:
    """The portrait's pixels, uint8 (H,W,3)."""
    return np.asarray(Image.open(astronaut).convert("RGB"))


@pytest.fixture(scope="session")
def couple(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    """A PNG with two faces: a large one on the right, a smaller one on the left."""
    height, width = portrait.shape[:2]
    large = Image.fromarray(portrait)
    small = large.resize((width * 2 // 3, height * 2 // 3), Image.Resampling.LANCZOS)
    both = Image.new("RGB", (small.width + width, height), (128, 128, 128))
    both.paste(small, (0, 0))
    both.paste(large, (small.width, 0))
    path = tmp_path_factory.mktemp("couple") / "couple.png"
    both.save(path)
    return path


@pytest.fixture(scope="session")
def tiny_model() -> FaceAgeModel:
    """A model with random weights, in eval mode, whose changes are large enough to measure."""
    torch.manual_seed(0)
    model = FaceAgeModel(TINY)
    for head in (model.decoder.flow, model.decoder.residual):  # initialised to zero: no change
        torch.nn.init.normal_(head.weight, std=0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory, tiny_model: FaceAgeModel) -> Path:
    """The weights file of the tiny model."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, tiny_model, {"licence": "none: random numbers", "images_seen": "0"})
    return path


@pytest.fixture(scope="session")
def fine_weights(tmp_path_factory: pytest.TempPathFactory, tiny_model: FaceAgeModel) -> Path:
    """The weights file of the tiny model with a fine level, which adds visible noise."""
    torch.manual_seed(1)
    model = FaceAgeModel(replace(TINY, fine_level=True))
    model.load_state_dict(tiny_model.state_dict(), strict=False)
    torch.nn.init.normal_(model.fine_level.residual.weight, std=0.5)
    path = tmp_path_factory.mktemp("weights") / "fine.safetensors"
    save_weights(path, model.eval(), {"licence": "none: random numbers", "images_seen": "0"})
    return path


@pytest.fixture
def portrait_png(tmp_path: Path, portrait: np.ndarray) -> Path:
    path = tmp_path / "me.png"
    Image.fromarray(portrait).save(path)
    return path


@dataclass
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def errors(self) -> list[str]:
        return self.err.splitlines()


@pytest.fixture
def run() -> Callable[..., Answer]:
    """`run("age", photo, "--to", 5)` runs the command line in this process."""
    from faceage.cli import app

    def call(*args: object) -> Answer:
        result = CliRunner().invoke(app, [str(arg) for arg in args])
        text = result.stdout + result.stderr
        assert "Traceback" not in text, text
        assert result.exception is None or isinstance(result.exception, SystemExit), text
        return Answer(result.exit_code, result.stdout, result.stderr)

    return call


@pytest.fixture
def snapshot() -> Callable[[Path], dict[str, str]]:
    """`snapshot(folder)` gives the sha256 of every file below the folder, by path."""

    def look(folder: Path) -> dict[str, str]:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    return look


@pytest.fixture(scope="session")
def vgg() -> dict[str, torch.Tensor]:
    """Random weights for VGG19's convolutions, under torchvision's names."""
    generator = torch.Generator().manual_seed(0)
    tensors, index, before = {}, 0, 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4)):
        for _ in range(count):
            weight = torch.randn(width, before, 3, 3, generator=generator, dtype=torch.float32)
            tensors[f"features.{index}.weight"] = (weight * (2 / (9 * before)) ** 0.5).half()
            tensors[f"features.{index}.bias"] = torch.zeros(width).half()
            index, before = index + 2, width
        index += 1
    return tensors
