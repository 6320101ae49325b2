"""Training options: recipes, TOML files, --set, and refused values."""

import dataclasses
import json
from pathlib import Path

import pytest

from faceage import hub
from faceage.errors import ConfigError
from faceage.models.architecture import ModelConfig
from faceage.training.config import (
    RECIPES,
    TrainConfig,
    find_vgg,
    make_config,
    to_dict,
)
from faceage.training.losses import LossWeights


def _config(recipe: str = "compact", *settings: str, **changes: object) -> TrainConfig:
    return make_config(recipe, "faces", "run", settings, **changes)


# --- recipes --------------------------------------------------------------------------------------


def test_the_paper_has_its_five_losses_and_no_extension() -> None:
    config = _config("paper", vgg="vgg.safetensors")
    config.check()
    losses = dataclasses.asdict(config.losses)
    extensions = {"target_age", "change", "wrong_age", "identity", "gender", "skin_tone"}
    extensions |= {"paired", "paired_features", "paired_texture"}
    paper = {"reconstruction", "cycle", "adversarial", "age", "perceptual"}
    assert set(losses) == paper | extensions | {"r1"}
    assert all(losses[name] > 0 for name in paper)
    assert all(losses[name] == 0 for name in extensions)
    assert config.model == ModelConfig()
    assert config.model.size == 256
    assert config.batch_size == 16
    assert config.warmup_images == 0
    assert not config.diff_augment
    assert not config.projected


@pytest.mark.parametrize("recipe", ["paper", "compact"])
def test_recipes_need_vgg19(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = _config(recipe)
    config.check()  # not a contradiction between options
    with pytest.raises(ConfigError, match="VGG19") as caught:
        find_vgg(config)
    assert "faceage weights fetch vgg19" in caught.value.hint
    assert find_vgg(_config(recipe, vgg="given.pth")) == Path("given.pth")
    monkeypatch.setattr(hub, "find", lambda name: Path("cache") / name)
    assert find_vgg(config) == Path("cache/vgg19")
    without = _config(recipe, "projected=false", "losses.perceptual=0", vgg="given.pth")
    assert find_vgg(without) is None


def test_compact() -> None:
    config = _config("compact", vgg="vgg.safetensors")
    config.check()
    assert config.model == ModelConfig.compact()
    assert (config.data, config.out, config.recipe) == ("faces", Path("run"), "compact")
    assert (config.images, config.warmup_images) == (850_000, 600_000)
    assert config.losses == LossWeights(
        cycle=2, perceptual=0, target_age=0.25, change=0.2, r1=0, wrong_age=0.5
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_not_modified(recipe: str) -> None:
    before = json.dumps(RECIPES[recipe])
    _config(recipe, "losses.r1=7", "model.width=48", "lr=1")
    assert json.dumps(RECIPES[recipe]) == before


def test_to_dict_survives_a_round_trip_through_json() -> None:
    config = _config("compact", "vgg=vgg.pth")
    values = json.loads(json.dumps(to_dict(config)))
    assert values["out"] == "run"
    assert values["vgg"] == "vgg.pth"
    assert values["weights"] is None
    rest = {k: v for k, v in values.items() if k not in ("data", "out", "recipe")}
    assert make_config("compact", "faces", "run", **rest) == config


def test_no_such_recipe() -> None:
    with pytest.raises(ConfigError, match="No recipe 'nonsuch'") as caught:
        _config("nonsuch")
    assert "compact" in caught.value.hint


# --- TOML -----------------------------------------------------------------------------------------


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'lr = 1\nvgg = "vgg.pth"\ndiff_augment = true\n[model]\nsize = 64\n[losses]\nr1 = 0.5\n'
    )
    config = _config(str(path), "losses.cycle=3")
    assert config.recipe == "mine"
    assert config.lr == 1.0
    assert isinstance(config.lr, float)
    assert config.vgg == Path("vgg.pth")
    assert config.diff_augment
    assert config.model == ModelConfig(size=64)
    assert config.losses == LossWeights(r1=0.5, cycle=3)


@pytest.mark.parametrize("content", [b"lr = ", b"lr = 1\nlr = 2\n", b"\xff\xfe"])
def test_invalid_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ConfigError, match="Cannot read the recipe"):
        _config(str(tmp_path / "mine.toml"))


def test_missing_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the recipe"):
        _config(str(tmp_path / "gone.toml"))


# --- --set ----------------------------------------------------------------------------------------


def test_settings() -> None:
    config = _config(
        "compact",
        "lr=2e-4",
        "images=1_000",
        "model.width=48",
        "model.decomposition=false",
        "losses.target_age=0",
        " recon_fraction = 1 ",
        "weights=runs/a b/w.safetensors",
        'vgg="vgg.pth"',
        "seed=-3",
    )
    assert (config.lr, config.images, config.recon_fraction, config.seed) == (2e-4, 1000, 1.0, -3)
    assert config.model == ModelConfig.compact(width=48, decomposition=False)
    assert config.losses.target_age == 0
    assert config.weights == Path("runs/a b/w.safetensors")
    assert config.vgg == Path("vgg.pth")


def test_settings_take_precedence() -> None:
    assert _config("compact", "images=5", images=7).images == 5
    assert _config("compact", images=7, vgg=None).images == 7
    assert _config("compact", "lr=1", "lr=2").lr == 2


def test_an_empty_setting_removes_a_path() -> None:
    assert _config("compact", "vgg=", vgg="vgg.pth").vgg is None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("nonsuch=1", "Unknown option 'nonsuch'"),
        ("model.nonsuch=1", "Unknown option 'model.nonsuch'"),
        ("losses.r1.r2=1", "losses.r1 is {'r2': 1}. It takes a number"),
        ("lr.x=1", "lr is {'x': 1}. It takes a number"),
        ("nonsuch.x=1", "Unknown option 'nonsuch'"),
        ("=1", "Unknown option ''"),
        ("lr", "Cannot read --set 'lr'"),
        ("lr=", "lr is ''. It takes a number"),
        ("lr=fast", "lr is 'fast'. It takes a number"),
        ("lr=true", "lr is True. It takes a number"),
        ("lr=[1]", "It takes a number"),
        ("images=1.5", "images is 1.5. It takes a whole number"),
        ("images=inf", "images is inf. It takes a whole number"),
        ("images=nan", "images is nan. It takes a whole number"),
        ("images=true", "images is True. It takes a whole number"),
        ("diff_augment=1", "diff_augment is 1. It takes true or false"),
        ("diff_augment=yes", "diff_augment is 'yes'. It takes true or false"),
        ("model.width=wide", "model.width is 'wide'. It takes a whole number"),
        ("model=48", "model is 48. It is a group"),
        ("losses=x", "losses is 'x'. It is a group"),
        ("out=5", "out is 5. It takes a path"),
        ("dtype=float16", "dtype is 'float16'. It takes bfloat16 or float32."),
        ("compile=1", "compile is 1. It takes true or false"),
        ("weights=5", "weights is 5. It takes a path"),
        ("memory_gb=much", "memory_gb is 'much'. It takes a number"),
    ],
)
def test_bad_settings(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _config("paper", setting)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_error_for_an_unknown_option_lists_the_options() -> None:
    with pytest.raises(ConfigError) as caught:
        _config("paper", "model.nonsuch=1")
    assert "classifier_size" in caught.value.hint


# --- contradictions -------------------------------------------------------------------------------


def test_check_lists_all_problems_at_once() -> None:
    config = _config(
        "paper",
        "batch_size=15",
        "warmup_batch=0",
        "recon_fraction=0",
        "lr=-1",
        "losses.cycle=nan",
        "losses.target_age=1",
        "model.size=100",
        "model.classifier_size=48",
        "model.width=20",
        "model.encoder_blocks=0",
        "model.decomposition=false",
        "warmup_images=1",
    )
    with pytest.raises(ConfigError) as caught:
        config.check(processes=2)
    for problem in (
        "batch_size 15 is not divisible by 2",
        "warmup_batch is 0, must be at least 1",
        "recon_fraction is 0.0",
        "lr is -1.0, must be 0 or more",
        "losses.cycle is nan, must be 0 or more",
        "model.size is 100",
        "model.classifier_size is 48, must be a multiple of 32",
        "model.width is 20",
        "model.encoder_blocks is 0, must be from 1 to",
        "warmup_images needs model.decomposition=true",
        "losses.target_age needs a trained classifier",
    ):
        assert problem in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "model.size=16",
        "model.width=0",
        "model.width=-16",
        "model.classifier_size=0",
        "images=0",
        "recon_fraction=1.1",
        "r1_interval=0",
        "save_minutes=-1",
        "warmup_images=-1",
        "weight_decay=inf",
        "grad_clip=-1",
        "memory_gb=-1",
        "workers=-1",
    ],
)
def test_values_out_of_range(setting: str) -> None:
    with pytest.raises(ConfigError, match=setting.partition("=")[0]):
        _config("compact", setting).check()


@pytest.mark.parametrize(
    "setting",
    ["losses.r1=0", "model.decoder_blocks=0", "seed=-1", "save_minutes=0", "recon_fraction=1"],
)
def test_values_in_range(setting: str) -> None:
    _config("compact", setting, vgg="vgg.pth").check()


def test_every_size_that_passes_the_check_runs() -> None:
    import torch

    from faceage.models.generator import FaceAgeModel

    for size, classifier_size, width in ((32, 32, 16), (64, 160, 48)):
        settings = [f"model.size={size}", f"model.classifier_size={classifier_size}"]
        config = _config("compact", *settings, f"model.width={width}", vgg="vgg.pth")
        config.check()
        model = FaceAgeModel(config.model).eval()
        side = config.model.classifier_crop
        with torch.no_grad():
            assert model.age_logits(torch.zeros(1, 3, side, side)).shape == (1, 101)
            change = model.decode(model.encode(torch.zeros(1, 3, size, size)), torch.zeros(1))
        assert change.residual.shape == (1, 3, size, size)
