"""`faceage train --dry-run`: checks and estimates."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY, Answer
from noise_dataset import write_noise, write_noise_pairs

from faceage.errors import ConfigError, DataError
from faceage.training import estimate
from faceage.training.config import TrainConfig, make_config
from faceage.training.estimate import count_cost, inspect_run

SMALL = [f"model.{name}={json.dumps(value)}" for name, value in vars(TINY).items()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return write_noise(folder)


def _config(data: Path, recipe: str = "compact", *settings: str) -> TrainConfig:
    return make_config(recipe, str(data), data.parent / "run", [*SMALL, *settings])


def test_a_newcomer_without_vgg19(data: Path) -> None:
    report = inspect_run(_config(data), "cpu")
    json.dumps(report)
    (missing,) = report["missing"]
    assert "faceage weights fetch vgg19" in missing
    assert report["options"]["lr"] == 2.5e-4
    assert report["device"] == "cpu"
    assert report["data"] == {
        "train": "data: 15 faces",
        "val": "data: 3 faces",
        "decoded": "into memory",
    }
    assert set(report["time"]) == {
        "warmup_images_per_second",
        "synthesis_images_per_second",
        "hours",
        "decoding_minutes",
    }
    assert all(value > 0 for value in report["time"].values())
    speed = report["time"]
    expected = 600_000 / speed["warmup_images_per_second"]
    expected += 250_000 / speed["synthesis_images_per_second"]
    assert speed["hours"] == pytest.approx(expected / 3600, rel=0.02)
    memory = report["memory"]
    assert memory["total_gb"] == pytest.approx(sum(memory.values()) / 2, rel=0.02)
    assert memory["pictures_gb"] == pytest.approx(18 * 64 * 64 * 3 / 1e9, rel=0.01)
    assert not (data.parent / "run").exists()


@pytest.mark.parametrize("setting", ["model.decomposition=false", "batch_size=8"])
def test_the_paper_without_perceptual_loss(data: Path, setting: str) -> None:
    report = inspect_run(_config(data, "paper", "losses.perceptual=0", setting), "cpu")
    assert report["missing"] == []
    assert "warmup_images_per_second" not in report["time"]
    assert report["memory"]["replay_buffer_gb"] == 0


def test_memory_depends_on_the_batch(data: Path) -> None:
    small, large = (
        inspect_run(_config(data, "compact", f"batch_size={n}", f"warmup_batch={n}"), "cpu")
        for n in (8, 64)
    )
    ratio = large["memory"]["activations_gb"] / small["memory"]["activations_gb"]
    assert ratio == pytest.approx(8, rel=0.1)
    assert large["memory"]["networks_gb"] == small["memory"]["networks_gb"]
    # The capacity of the replay buffer is in faces.
    assert large["memory"]["replay_buffer_gb"] == small["memory"]["replay_buffer_gb"] > 0


def test_the_estimate_of_the_replay_buffer(data: Path) -> None:
    """2,048 faces; features of both taps, for real and aged faces, in bfloat16."""
    memory = inspect_run(_config(data), "cpu")["memory"]
    taps = 256 * 4 * 4 + 512 * 2 * 2  # at 16 px
    age_features = 64 * 4 * 4
    expected = 2048 * 2 * 2 * (taps + age_features)
    assert memory["replay_buffer_gb"] == pytest.approx(expected / 1e9, rel=0.01)


def test_pictures_that_do_not_fit_in_memory(data: Path) -> None:
    report = inspect_run(_config(data, "compact", "memory_gb=0"), "cpu")
    assert report["data"]["decoded"] == "while training"
    assert report["memory"]["pictures_gb"] == 0
    assert "decoding_minutes" not in report["time"]


def test_a_run_on_pairs(data: Path, tmp_path: Path) -> None:
    pairs = write_noise_pairs(tmp_path / "pairs")
    settings = [f"pairs={pairs}", "flow_images=50000", "warmup_images=0", "losses.paired=1"]
    settings += ["losses.target_age=0", "age_features=false", "model.size=64"]
    report = inspect_run(_config(data, "compact", *settings), "cpu")
    assert report["data"]["pairs"] == "pairs: 12 faces"
    speed = report["time"]
    expected = 50_000 / speed["displacement_images_per_second"]
    expected += 800_000 / speed["synthesis_images_per_second"]
    assert speed["hours"] == pytest.approx(expected / 3600, rel=0.02)


def test_a_fine_level(tmp_path: Path, tiny_weights: Path) -> None:
    pairs = write_noise_pairs(tmp_path / "pairs")
    settings = [f"weights={tiny_weights}", "model.fine_level=true"]
    report = inspect_run(_config(pairs, "fine-level", *settings), "cpu")
    assert report["cost"]["gmac_refine"] > 0
    assert set(report["time"]) == {"synthesis_images_per_second", "hours", "decoding_minutes"}
    side = 4 * TINY.size
    pictures = 12 * side * side * 3  # once, as train and val set are the same
    changes = 12 * (side * side * 3 + TINY.size * TINY.size * 3 * 2 + 8)
    assert report["memory"]["pictures_gb"] == pytest.approx(pictures / 1e9, rel=0.01)
    assert report["memory"]["changes_gb"] == pytest.approx(changes / 1e9, rel=0.01)


def test_missing_pictures_of_pairs(data: Path, tmp_path: Path) -> None:
    pairs = write_noise_pairs(tmp_path / "pairs")
    (pairs / "3.png").unlink()
    settings = [f"pairs={pairs}", "losses.paired=1"]
    with pytest.raises(DataError, match=r"1 of 12 pictures in .*pairs are missing, such as 3.png"):
        inspect_run(_config(data, "compact", *settings), "cpu")


def test_too_little_memory(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimate, "free_memory", lambda: 1 << 20)
    report = inspect_run(_config(data, "compact", "projected=false"), "cpu")
    (missing,) = report["missing"]
    assert "0.0 GB are free" in missing


def test_missing_pictures_are_counted(data: Path) -> None:
    for number in (4, 8):
        (data / f"{number}.png").unlink()
    with pytest.raises(DataError, match=r"2 of 15 pictures in .* are missing, such as 4\.png"):
        inspect_run(_config(data), "cpu")


def test_damaged_pictures_are_found(data: Path) -> None:
    (data / "7.png").write_bytes(b"not a picture")  # in the val set
    with pytest.raises(DataError, match=r"Cannot read 7\.png"):
        inspect_run(_config(data), "cpu")


def test_errors_come_in_the_order_in_which_they_are_fixed(data: Path) -> None:
    (data / "8.png").unlink()
    with pytest.raises(ConfigError, match="Invalid options"):
        inspect_run(_config(data / "gone", "compact", "lr=-1"), "cpu")
    with pytest.raises(ConfigError, match="abacus"):
        inspect_run(_config(data / "gone"), "abacus")
    with pytest.raises(DataError, match="No dataset folder"):
        inspect_run(_config(data / "gone"), "cpu")
    with pytest.raises(DataError, match="missing"):
        inspect_run(_config(data), "cpu")
    write_noise(data)
    assert len(inspect_run(_config(data), "cpu")["missing"]) == 1


def test_what_is_missing_goes_to_stderr(run: Callable[..., Answer], data: Path) -> None:
    settings = [f"--set={setting}" for setting in SMALL]
    answer = run("train", "--data", data, "--dry-run", "--device", "cpu", *settings)
    assert answer.code == 0
    (missing,) = json.loads(answer.out)["missing"]
    assert answer.errors == [f"note: {missing}"]


def test_cost() -> None:
    figures = count_cost(make_config("compact", "faces", "run"))
    assert figures["million_parameters_generator"] == pytest.approx(7.425, abs=0.001)
    assert figures["million_parameters_discriminator"] == pytest.approx(0.480, abs=0.001)
    for part in ("encode", "decode", "discriminate", "classify"):
        assert figures[f"gmac_{part}"] > 0
    baseline = count_cost(make_config("compact", "faces", "run", ["model.decomposition=false"]))
    assert "gmac_classify" not in baseline


def test_random_vgg19_has_finite_features() -> None:
    vgg = estimate._random_vgg()
    features = vgg(torch.zeros(1, 3, 32, 32), vgg.TAPS)
    assert all(torch.isfinite(part).all() and part.any() for part in features)
