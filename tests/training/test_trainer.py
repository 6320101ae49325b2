"""The real training loop, on pictures of noise and a tiny model."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from noise_dataset import write_noise, write_noise_pairs
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from faceage.checkpoints import load_state, load_weights, save_state, save_weights
from faceage.distributed import Processes
from faceage.errors import ConfigError, DataError, FaceAgeError, WeightsError
from faceage.models.generator import SHARED, FaceAgeModel
from faceage.models.mobilenet import MobileNet
from faceage.models.windows import skin_window
from faceage.scale.packing import Packer
from faceage.training import state
from faceage.training import trainer as training
from faceage.training.config import TrainConfig, make_config
from faceage.training.losses import (
    DiscriminatorBatch,
    LossWeights,
    Terms,
    age_loss,
    discriminator_loss,
)
from faceage.training.trainer import Trainer, make_trainer, train

ALONE = Processes(0, 1, torch.device("cpu"))
UNET = replace(TINY, size=64, decoder="unet")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(training, "CALIBRATION_BATCHES", 1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small do not gain from a second thread
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture
def make(data: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """`make("run", images=24)`: two steps of warm-up, then synthesis, 8 images each."""

    def config(out: str = "run", **changes: object) -> TrainConfig:
        usual = TrainConfig(
            data=str(data),
            out=tmp_path / out,
            recipe="test",
            model=TINY,
            losses=LossWeights(perceptual=0, target_age=0.5, change=1),
            images=32,
            warmup_images=16,
            warmup_batch=8,
            batch_size=8,
            lr=1e-3,
            lr_discriminator=1e-3,
            lr_encoder=0.2,
            ema_images=100,
            recon_fraction=0.5,
            sharpness=0.5,
            diff_augment=True,
            r1_interval=2,
        )
        return replace(usual, **changes)  # type: ignore[arg-type]

    return config


def next_step(trainer: Trainer) -> Terms:
    """The losses of the step after `images_seen`."""
    return trainer.step(*next(trainer.batches()))


def _baseline(make: Callable[..., TrainConfig], out: str = "run", **changes: object) -> TrainConfig:
    model = replace(TINY, decomposition=False)
    usual = dict(model=model, losses=LossWeights(perceptual=0), warmup_images=0, images=16)
    return make(out, **(usual | changes))


def _assert_same(a: object, b: object, where: str = "state") -> None:
    """Equal bit by bit."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            _assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            _assert_same(x, y, f"{where}.{index}")
    elif isinstance(a, Tensor):
        assert torch.equal(a, b), where
    else:
        assert a == b, where


def _state(config: TrainConfig) -> dict:
    state = load_state(config.out / "state.pt")
    del state["config"]  # contains the run directory's path
    return state


def _stats(config: TrainConfig) -> list[dict]:
    lines = (config.out / "stats.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _last_values(config: TrainConfig) -> dict:
    """The last value of every statistic; a slow machine writes them in several records."""
    return {name: value for record in _stats(config) for name, value in record.items()}


# --- results of a run -----------------------------------------------------------------------------


def test_a_run(make: Callable[..., TrainConfig], data: Path) -> None:
    config = make()
    path = train(config, "cpu")
    assert path == config.out / "weights.safetensors"
    left = {p.relative_to(config.out).as_posix() for p in config.out.rglob("*")}
    assert left >= {"weights.safetensors", "state.pt", "stats.jsonl", "samples/000000032.png"}
    assert not [name for name in left if name.endswith(".tmp")]

    model, metadata = load_weights(path)
    assert model.config == TINY
    assert metadata["images_seen"] == "32"
    assert metadata["recipe"] == "test"
    assert metadata["data"] == f"{data.name}: 15 faces"
    assert metadata["licence"] == "unknown: set by whoever trained these weights"
    assert "initial_weights" not in metadata
    assert set(json.loads(metadata["figures"])) == {"val/accuracy", "val/one_off", "val/mae"}
    options = json.loads(metadata["training"])
    assert options["losses"]["target_age"] == 0.5
    assert str(data) not in json.dumps(metadata)  # no paths in weights
    assert str(config.out) not in json.dumps(metadata)
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())

    with Image.open(config.out / "samples" / "000000032.png") as sheet:
        assert sheet.width > sheet.height > 200  # eight columns, five faces

    state = _state(config)
    assert state["images_seen"] == 32
    losses = {k: v for k, v in _last_values(config).items() if k.startswith("loss/")}
    assert {"loss/G/age", "loss/G/reconstruction", "loss/G/adversarial", "loss/G/cycle"} <= set(
        losses
    )
    assert {"loss/G/target_age", "loss/G/change", "loss/D/real", "loss/D/r1"} <= set(losses)
    assert all(math.isfinite(value) for value in losses.values())


def test_a_run_trains_every_part(make: Callable[..., TrainConfig]) -> None:
    config = make()
    torch.manual_seed(config.seed)
    initial = FaceAgeModel(TINY).state_dict()
    train(config, "cpu")
    state = _state(config)
    for name in (
        "encoder.stem.0.weight",
        "decomposition.spatial.weight",
        "classifier.head.weight",
        "decoder.residual.weight",
        "decoder.flow.weight",
        "age_feature_cnn.embedding.table.weight",
    ):
        assert not torch.equal(state["model"][name], initial[name]), name
        assert not torch.equal(state["ema"][name], initial[name]), name
        assert not torch.equal(state["ema"][name], state["model"][name]), name


def test_the_warm_up_does_not_train_the_decoder(make: Callable[..., TrainConfig]) -> None:
    config = make(images=16)
    torch.manual_seed(config.seed)
    initial = FaceAgeModel(TINY).state_dict()
    train(config, "cpu")
    state = _state(config)
    for name, value in initial.items():
        if name.split(".")[0] in ("decoder", "age_feature_cnn"):
            assert torch.equal(state["model"][name], value), name
    _assert_same(state["model"], state["ema"])  # the synthesis continues from the EMA weights
    assert not torch.equal(
        state["model"]["classifier.head.weight"], initial["classifier.head.weight"]
    )


def test_batch_statistics_of_the_warm_up_are_kept(make: Callable[..., TrainConfig]) -> None:
    train(make("warmup", images=16), "cpu")
    train(make("longer"), "cpu")
    warmup, longer = _state(make("warmup"))["model"], _state(make("longer"))["model"]
    kept = [n for n in warmup if "running" in n and not n.startswith("age_feature_cnn")]
    assert kept
    for name in kept:
        assert torch.equal(warmup[name], longer[name]), name
    changed = [n for n in warmup if "running" in n and n.startswith("age_feature_cnn")]
    assert all(not torch.equal(warmup[n], longer[n]) for n in changed)


def test_the_same_seed_gives_the_same_run(make: Callable[..., TrainConfig]) -> None:
    for out in ("a", "b"):
        train(make(out, images=24), "cpu")
    _assert_same(_state(make("a")), _state(make("b")))
    train(make("c", images=24, seed=1), "cpu")
    name = "encoder.stem.0.weight"
    assert not torch.equal(_state(make("a"))["model"][name], _state(make("c"))["model"][name])


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup_images", [0, 16, 24, 48], ids=lambda n: f"warmup{n}")
def test_a_resumed_run_equals_an_uninterrupted_one(
    make: Callable[..., TrainConfig], warmup_images: int
) -> None:
    """Interrupted in the synthesis, one step after the warm-up, at its end, or inside it."""
    losses = LossWeights(perceptual=0, target_age=0.5 if warmup_images else 0, change=1)
    options = dict(warmup_images=warmup_images, losses=losses)
    train(make("whole", images=48, **options), "cpu")
    train(make("parts", images=24, **options), "cpu")
    torch.manual_seed(99)  # random numbers drawn in between have no effect
    train(make("parts", images=48, **options), "cpu")
    assert _state(make("parts"))["images_seen"] == 48
    _assert_same(_state(make("whole")), _state(make("parts")))
    whole, parts = (
        load_weights(make(n).out / "weights.safetensors")[0] for n in ("whole", "parts")
    )
    _assert_same(dict(whole.state_dict()), dict(parts.state_dict()))


def test_the_shipped_recipe_resumes_exactly(
    data: Path, tmp_path: Path, vgg: dict[str, Tensor]
) -> None:
    """The recipe `compact` with a tiny model, interrupted with two batches in the replay buffer."""
    save_file(vgg, tmp_path / "vgg.safetensors")
    small = [f"model.{name}={str(value).lower()}" for name, value in asdict(TINY).items()]

    def run(out: str, images: int) -> TrainConfig:
        lengths = ["warmup_images=16", "warmup_batch=8", "batch_size=8", f"images={images}"]
        config = make_config(
            "compact", str(data), tmp_path / out, small + lengths, vgg=tmp_path / "vgg.safetensors"
        )
        assert config.projected
        assert config.age_features
        assert config.discriminator_updates == 3
        train(config, "cpu")
        return config

    whole = _state(run("whole", images=56))
    run("parts", images=32)
    assert len(_state(run("parts", images=32))["replay_buffer"]) == 2
    parts = _state(run("parts", images=56))
    assert len(parts["replay_buffer"]) == 5
    _assert_same(whole, parts)


def test_saving_does_not_change_the_run(make: Callable[..., TrainConfig]) -> None:
    train(make("rarely", images=24), "cpu")
    train(make("always", images=24, save_minutes=0), "cpu")
    _assert_same(_state(make("rarely")), _state(make("always")))
    samples = sorted(p.name for p in (make("always").out / "samples").iterdir())
    assert samples == [f"{n:09d}.png" for n in (8, 16, 24)]


def test_a_finished_run_is_only_exported_again(make: Callable[..., TrainConfig]) -> None:
    train(make(), "cpu")
    before = _state(make())
    (make().out / "weights.safetensors").unlink()
    train(make(), "cpu")
    _assert_same(_state(make()), before)
    load_weights(make().out / "weights.safetensors")


def test_other_options_are_refused(make: Callable[..., TrainConfig]) -> None:
    config = make(images=8)
    train(config, "cpu")
    before = config.out.joinpath("state.pt").read_bytes()
    with pytest.raises(ConfigError, match=r"other values of losses, lr\b"):
        train(make(images=16, lr=0.5, losses=LossWeights(perceptual=0)), "cpu")
    with pytest.raises(ConfigError, match="other values of model"):
        train(make(images=16, model=replace(TINY, width=32)), "cpu")
    assert config.out.joinpath("state.pt").read_bytes() == before


def test_a_state_without_newer_options_is_resumed(make: Callable[..., TrainConfig]) -> None:
    config = make(images=16)
    train(config, "cpu")
    path = config.out / state.STATE
    content = load_state(path, torch.device("cpu"))
    del content["config"]["embedder"], content["config"]["losses"]["identity"]
    save_state(path, content)
    train(make(images=24), "cpu")
    assert _state(config)["images_seen"] == 24


def test_a_damaged_state_is_refused(make: Callable[..., TrainConfig]) -> None:
    config = make(images=8)
    train(config, "cpu")
    path = config.out / "state.pt"
    state = load_state(path)
    state["model"].pop("encoder.stem.0.weight")
    save_state(path, state)
    with pytest.raises(WeightsError, match="another version") as caught:
        train(config, "cpu")
    assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match="not a readable training state"):
        train(config, "cpu")


# --- refused before anything is written -----------------------------------------------------------


def test_contradictions_are_refused(make: Callable[..., TrainConfig]) -> None:
    with pytest.raises(ConfigError, match="Invalid options"):
        train(make(recon_fraction=0), "cpu")
    assert not make().out.exists()


def test_missing_data_is_refused(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone"):
        train(make(data=str(tmp_path / "gone")), "cpu")
    assert not make().out.exists()


def test_a_run_can_start_from_weights(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = FaceAgeModel(TINY)
    path = save_weights(tmp_path / "first.safetensors", model, {"licence": "theirs"})
    config = make(weights=path, warmup_images=0, images=8, licence="ours")
    trainer = make_trainer(config, ALONE)
    value = model.state_dict()["encoder.stem.0.weight"].half().float()
    assert torch.equal(trainer.networks.model.state_dict()["encoder.stem.0.weight"], value)
    assert all(p.requires_grad for p in trainer.networks.model.parameters())
    with pytest.raises(ConfigError, match="another encoder"):
        make_trainer(make(weights=path, model=replace(TINY, width=32)), ALONE)

    stated = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "licence": "theirs"}
    train(config, "cpu")
    path.unlink()  # not needed for resuming
    _, metadata = load_weights(train(replace(config, images=16), "cpu"))
    assert json.loads(metadata["initial_weights"]) == stated
    assert metadata["licence"] == "ours"
    assert str(tmp_path) not in json.dumps(metadata)
    with pytest.raises(ConfigError, match=r"other values of .*weights"):
        train(replace(config, weights=None, losses=LossWeights(perceptual=0)), "cpu")


def test_weights_with_another_decoder_give_encoder_and_classifier(
    make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    source = FaceAgeModel(TINY)
    path = save_weights(tmp_path / "first.safetensors", source, {})
    config = make(weights=path, warmup_images=0, model=UNET)
    state = make_trainer(config, ALONE).networks.model.state_dict()
    for name, value in load_weights(path)[0].state_dict().items():
        if name.split(".")[0] in SHARED:
            assert torch.equal(state[name], value)
    assert not state["decoder.residual.weight"].any()  # of no change, as at the start


def test_training_on_pairs_resumes_exactly(
    make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    pairs = str(write_noise_pairs(tmp_path / "pairs"))
    options: dict[str, Any] = {
        "pairs": pairs,
        "model": UNET,
        "losses": LossWeights(perceptual=0, paired=1, paired_features=1, target_age=0.5),
        "warmup_images": 8,
        "flow_images": 16,
        "images": 48,
    }
    whole = train(make("whole", **options), "cpu")
    for images in (16, 32, 48):
        parts = train(make("parts", **options | {"images": images}), "cpu")
    expected, metadata = load_weights(whole)
    found, _ = load_weights(parts)
    assert metadata["pairs"] == "pairs: 12 faces"
    assert json.loads(metadata["training"])["pairs"] == ""  # a path of this machine
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_targets_of_pairs_have_the_skin_of_the_source(
    make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = make(
        pairs=str(write_noise_pairs(tmp_path / "pairs")),
        losses=LossWeights(perceptual=0, paired=1),
        pairs_fraction=0.5,
        warmup_images=8,
    )
    trainer = make_trainer(config, ALONE)
    plan, images = next(b for b in trainer.batches() if b[0].paired.any())
    batch = trainer._prepare(plan, images)
    rows, columns = skin_window(batch.faces.shape[-1])
    means = (batch.real - batch.faces)[..., rows, columns].mean((2, 3)).abs().amax(1)
    assert means[batch.paired].max() < 0.01 < means[~batch.paired].min()


def test_a_run_can_start_from_a_discriminator(make: Callable[..., TrainConfig]) -> None:
    options: dict[str, Any] = {"losses": LossWeights(perceptual=0), "images": 16}
    first = make("first", **options)
    train(first, "cpu")
    given = {"discriminator": first.out / state.STATE}
    trainer = make_trainer(make("second", **options | given), Processes(0, 1, torch.device("cpu")))
    expected = load_state(first.out / state.STATE, torch.device("cpu"))["discriminator"]
    for name, value in trainer.networks.discriminator.state_dict().items():
        assert torch.equal(value, expected[name])
    other = make("third", **options | given | {"model": replace(TINY, width=2 * TINY.width)})
    with pytest.raises(ConfigError, match="another discriminator"):
        make_trainer(other, Processes(0, 1, torch.device("cpu")))


def test_only_the_fine_level_is_trained(
    make: Callable[..., TrainConfig], vgg: dict[str, Tensor], tmp_path: Path
) -> None:
    pairs = str(write_noise_pairs(tmp_path / "pairs"))
    save_file(vgg, tmp_path / "vgg.safetensors")
    first = train(make("first", losses=LossWeights(perceptual=0), images=16), "cpu")
    config = make(
        "fine",
        data=pairs,
        model=replace(TINY, fine_level=True),
        losses=LossWeights(perceptual=0, paired=1, paired_features=1, r1=0),
        weights=first,
        projected=True,
        vgg=tmp_path / "vgg.safetensors",
        lr=0.01,
        warmup_images=0,
        images=32,
    )
    before, described = load_weights(first)
    after, metadata = load_weights(train(config, "cpu"))
    for name in ("data", "images_seen", "figures", "training"):
        assert metadata[name] == described[name]
    own = json.loads(metadata["fine_level"])
    assert own["images_seen"] == "32"
    assert own["data"] == "pairs: 12 faces"
    assert own["initial_weights"]
    old, new = before.state_dict(), after.state_dict()
    assert all(torch.equal(new[name], value) for name, value in old.items())
    assert {name.split(".")[0] for name in new.keys() - old.keys()} == {"fine_level"}
    assert new["fine_level.residual.weight"].abs().max() > 0
    recorded = _last_values(config)
    assert {"loss/G/paired", "loss/G/paired_features", "loss/D/fake"} <= recorded.keys()


def test_a_fine_level_needs_pairs(
    make: Callable[..., TrainConfig], vgg: dict[str, Tensor], tmp_path: Path, tiny_weights: Path
) -> None:
    save_file(vgg, tmp_path / "vgg.safetensors")
    config = make(
        model=replace(TINY, fine_level=True),
        losses=LossWeights(perceptual=0, paired=1, r1=0),
        weights=tiny_weights,
        projected=True,
        vgg=tmp_path / "vgg.safetensors",
        warmup_images=0,
    )
    with pytest.raises(DataError, match=r"No person in .* has two pictures"):
        train(config, "cpu")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"weights": None}, "needs weights to start from"),
        ({"warmup_images": 16}, "no warm-up"),
        ({"pairs": "pairs"}, "pairs given as data"),
    ],
)
def test_options_of_the_fine_level(
    make: Callable[..., TrainConfig], changes: dict[str, Any], problem: str
) -> None:
    usual: dict[str, Any] = {
        "model": replace(TINY, fine_level=True),
        "losses": LossWeights(perceptual=0),
        "weights": Path("w.safetensors"),
        "projected": True,
        "warmup_images": 0,
    }
    make(**usual).check()
    with pytest.raises(ConfigError, match=problem):
        make(**usual | changes).check()


def test_learning_rates_rise(make: Callable[..., TrainConfig]) -> None:
    config = make(
        losses=LossWeights(perceptual=0), images=48, lr=0.1, lr_discriminator=0.2, lr_rise_images=32
    )
    trainer = make_trainer(config, Processes(0, 1, torch.device("cpu")))
    rates = []
    for plan, _ in trainer.batches():
        trainer._set_learning_rates(plan)
        done = plan.images_seen + plan.images - config.warmup_images
        networks = trainer.networks
        found = [
            networks.optimiser.param_groups[0],
            networks.optimiser_discriminator.param_groups[0],
        ]
        rates.append((done, *(group["lr"] for group in found)))
    for done, rate, rate_d in rates:
        rise = min(1, done / 32)
        assert (rate, rate_d) == pytest.approx((0.1 * rise, 0.2 * rise))
    assert rates[0][1] < 0.1 < rates[-1][1] + 1e-9


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    """The weights of an identity embedder."""
    torch.manual_seed(0)
    tensors = {k: 0.1 * torch.randn_like(v) for k, v in MobileNet().state_dict().items()}
    save_file(tensors, tmp_path / "embedder.safetensors")
    return tmp_path / "embedder.safetensors"


def test_a_run_with_the_losses_on_embeddings(
    make: Callable[..., TrainConfig], data: Path, tmp_path: Path, embedder: Path
) -> None:
    named = shutil.copytree(data, tmp_path / "named")
    first, *rows = (data / "faces.csv").read_text().splitlines()
    rows = [f"{row},{'FM'[number % 2]}" for number, row in enumerate(rows)]
    (named / "faces.csv").write_text("\n".join([f"{first},gender", *rows]) + "\n")
    options: dict[str, Any] = {
        "data": str(named),
        "losses": LossWeights(perceptual=0, identity=1, gender=1, skin_tone=1),
        "embedder": embedder,
        "images": 32,
    }
    path = train(make(**options), "cpu")
    last = _last_values(make(**options))
    assert 0 < last["loss/G/identity"] < 2
    assert 0 <= last["loss/G/gender"] < 2
    assert last["loss/G/skin_tone"] > 0
    assert json.loads(load_weights(path)[1]["training"])["embedder"] == ""
    with pytest.raises(ConfigError, match=r"losses\.identity and losses\.gender needs an embedder"):
        train(make(**options | {"embedder": None}), "cpu")


def test_the_loss_of_gender_needs_women_and_men(
    make: Callable[..., TrainConfig], embedder: Path
) -> None:
    losses = LossWeights(perceptual=0, gender=1)
    with pytest.raises(ConfigError, match=r"losses\.gender needs women and men"):
        train(make(losses=losses, embedder=embedder), "cpu")


def test_only_the_displacement_changes_in_its_part_of_the_training(
    make: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    pairs = str(write_noise_pairs(tmp_path / "pairs"))
    config = make(
        pairs=pairs,
        model=UNET,
        warmup_images=0,
        flow_images=32,
        images=32,
        age_features=False,
        losses=LossWeights(perceptual=0, paired=1),
    )
    trainer = make_trainer(config, ALONE)
    before = {k: v.clone() for k, v in trainer.networks.discriminator.state_dict().items()}
    for plan, images in trainer.batches():
        terms = trainer.step(plan, images)
        assert set(terms) == {"G/moved", "G/variation"}
    state = trainer.networks.model.state_dict()
    assert state["decoder.flow.weight"].any()
    assert not state["decoder.residual.weight"].any()
    for name, value in trainer.networks.discriminator.state_dict().items():
        assert torch.equal(value, before[name])


def test_errors_come_in_the_order_in_which_they_are_fixed(
    make: Callable[..., TrainConfig], data: Path, tmp_path: Path
) -> None:
    wrong = dict(lr=-1.0, data=str(tmp_path / "gone"), projected=True, weights=tmp_path / "gone")
    fixes = [("Invalid options", "lr", 1.0), ("No dataset", "data", str(data))]
    fixes += [("VGG19", "projected", False), ("gone", "weights", None)]
    for says, name, fixed in fixes:
        with pytest.raises(FaceAgeError, match=says):
            train(make(images=8, **wrong), "cpu")
        wrong[name] = fixed
    assert not make().out.exists()
    train(make(images=8, **wrong), "cpu")


def test_a_vgg_file_that_is_none(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = make(losses=LossWeights(perceptual=1), vgg=tmp_path / "gone.pth")
    with pytest.raises(WeightsError, match=r"gone\.pth"):
        train(config, "cpu")


# --- variants -------------------------------------------------------------------------------------


def test_the_baseline_trains(make: Callable[..., TrainConfig]) -> None:
    """RAGAN: no decomposition, no classifier, conditioned on the source age."""
    config = _baseline(make)
    model, metadata = load_weights(train(config, "cpu"))
    assert not hasattr(model, "classifier")
    assert json.loads(metadata["figures"]) == {}
    losses = {k: v for k, v in _last_values(config).items() if k.startswith("loss/")}
    assert "loss/G/age" not in losses
    assert all(math.isfinite(value) for value in losses.values())
    assert (config.out / "samples" / "000000016.png").is_file()


def test_without_a_val_set_the_training_set_is_monitored(
    make: Callable[..., TrainConfig], data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "groups"
    root.mkdir()
    (root / "0.png").write_bytes((data / "0.png").read_bytes())
    (root / "faces.csv").write_text("file,age_group,set\n0.png,0-2,train\n")
    _, metadata = load_weights(train(make(data=str(root), images=8), "cpu"))
    assert set(json.loads(metadata["figures"])) == {"val/accuracy", "val/one_off"}  # no years known


def test_a_malformed_val_set_is_refused(
    make: Callable[..., TrainConfig], data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "faces"
    root.mkdir()
    (root / "0.png").write_bytes((data / "0.png").read_bytes())
    (root / "faces.csv").write_text("file,age,set\n0.png,5,train\n0.png,old,val\n0.png,7,test\n")
    with pytest.raises(DataError, match="line 3"):
        train(make(data=str(root)), "cpu")


def test_the_ema_has_its_half_life(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, decays = make_trainer(make(ema_images=100, images=2000), ALONE), []
    monkeypatch.setattr(trainer.networks, "update_ema", decays.append)
    for images_seen in (16, 1000):
        trainer.state.images_seen = images_seen
        next_step(trainer)
    assert decays == pytest.approx([0.5 ** (8 / 5), 0.5 ** (8 / 100)])


# --- pictures that do not fit in memory -----------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_is_the_same_without_memory(make: Callable[..., TrainConfig], workers: int) -> None:
    """Pictures that are decoded while training give the same result, resumed or not."""
    train(make("memory", images=48), "cpu")
    options = dict(memory_gb=0, workers=workers)
    train(make("disk", images=24, **options), "cpu")
    train(make("disk", images=40, **options), "cpu")
    train(make("disk", images=48), "cpu")
    _assert_same(_state(make("memory")), _state(make("disk")))
    memory, disk = (load_weights(make(n).out / "weights.safetensors") for n in ("memory", "disk"))
    _assert_same(dict(memory[0].state_dict()), dict(disk[0].state_dict()))
    assert memory[1]["figures"] == disk[1]["figures"]


@pytest.mark.parametrize("memory_gb", [None, 0], ids=["decoded", "streamed"])
def test_a_run_on_packed_data_is_the_same(
    make: Callable[..., TrainConfig], data: Path, tmp_path: Path, memory_gb: float | None
) -> None:
    """The same steps from tars as from the folder, resumed in the warm-up and in the synthesis."""
    packer = Packer(str(data), tmp_path / "packed", shard_bytes=40_000)
    list(packer.write_shards(lambda: None))
    packer.write_table()
    train(make("folder", images=48), "cpu")
    options = dict(data=str(tmp_path / "packed"), memory_gb=memory_gb, workers=2)
    for images in (8, 32, 48):
        train(make("tars", images=images, **options), "cpu")
    _assert_same(_state(make("folder")), _state(make("tars")))
    folder, tars = (load_weights(make(n).out / "weights.safetensors") for n in ("folder", "tars"))
    _assert_same(dict(folder[0].state_dict()), dict(tars[0].state_dict()))
    assert folder[1]["figures"] == tars[1]["figures"]


def test_a_damaged_picture_is_one_line(make: Callable[..., TrainConfig], tmp_path: Path) -> None:
    root = tmp_path / "damaged"
    root.mkdir()
    write_noise(root)
    (root / "8.png").write_bytes(b"not a picture")
    for memory_gb in (None, 0):
        with pytest.raises(DataError, match=r"Cannot read 8\.png") as caught:
            train(make(data=str(root), memory_gb=memory_gb), "cpu")
        assert "\n" not in str(caught.value)
        assert caught.value.hint


# --- gradients ------------------------------------------------------------------------------------


def _poison(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Make the age loss, and with it the gradient, infinite in some steps, counted from 0."""
    calls = iter(range(10**6))

    def loss(*inputs: Tensor) -> Tensor:
        return age_loss(*inputs) * (math.inf if next(calls) in steps else 1)

    monkeypatch.setattr(training, "age_loss", loss)


def test_a_step_with_a_gradient_that_is_not_finite_has_no_effect(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, {1})
    trainer = make_trainer(make(warmup_images=32), ALONE)
    assert set(next_step(trainer)) == {"G/age"}
    before = [p.detach().clone() for p in trainer.networks.model.parameters()]
    assert next_step(trainer) == {}
    pairs = zip(before, trainer.networks.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert set(next_step(trainer)) == {"G/age"}


def test_skipped_steps_are_counted(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, {0})
    train(make(images=8), "cpu")
    train(make(images=16), "cpu")
    assert _state(make())["skipped_steps"] == 1
    assert [line["skipped_steps"] for line in _stats(make()) if "val/mae" not in line] == [1, 1]
    assert all(torch.isfinite(v).all() for v in _state(make())["model"].values())


def test_a_skipped_step_of_the_generator_does_not_update_the_discriminator(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    _poison(monkeypatch, {0})
    trainer = make_trainer(make(warmup_images=8, losses=LossWeights(perceptual=0)), ALONE)
    trainer.state.images_seen = 8
    before = [p.detach().clone() for p in trainer.networks.discriminator.parameters()]
    assert next_step(trainer) == {}
    pairs = zip(before, trainer.networks.discriminator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not trainer.state.replay_buffer
    assert "D/real" in next_step(trainer)


def test_many_skipped_steps_in_a_row_stop_the_training(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MAX_SKIPPED", 3)
    _poison(monkeypatch, {0, 1, 3, 4, 5})
    with pytest.raises(
        FaceAgeError, match="48 images: the gradients of 3 steps in a row"
    ) as caught:
        train(make(images=800, warmup_images=800), "cpu")
    assert "\n" not in str(caught.value)


def test_gradients_are_clipped(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(make(grad_clip=0.5), ALONE)
    norms: list[float] = []

    def measure() -> None:
        gradients = [p.grad for p in trainer.networks.model.parameters() if p.grad is not None]
        norms.append(nn.utils.get_total_norm(gradients).item())

    monkeypatch.setattr(trainer.networks.optimiser_warmup, "step", measure)
    next_step(trainer)
    assert norms == [pytest.approx(0.5, rel=1e-4)]


def test_dtype(make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: dict[str, set[torch.dtype]] = {"float32": set(), "bfloat16": set()}
    for dtype, seen in kinds.items():
        trainer = make_trainer(make(dtype=dtype), ALONE)
        trainer.networks.model.encoder.stem[0].register_forward_hook(
            lambda *a, seen=seen: seen.add(a[2].dtype)
        )
        next_step(trainer)
    assert kinds == {"float32": {torch.float32}, "bfloat16": {torch.bfloat16}}


def test_compile(make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(module))
    for r1 in (0, 1):
        compiled.clear()
        trainer = make_trainer(make(compile=True, losses=LossWeights(perceptual=0, r1=r1)), ALONE)
        parts = [*trainer.networks.model.children(), *trainer.networks.ema.children()]
        assert compiled == parts + ([] if r1 else [trainer.networks.discriminator])


@pytest.mark.slow
def test_compile_changes_no_result(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a backend that does not generate code, whose numbers are the same."""
    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda m: original(m, backend="aot_eager"))
    for out, flag in (("plain", False), ("compiled", True)):
        train(make(out, images=24, compile=flag, dtype="float32"), "cpu")
    plain, compiled = _state(make("plain")), _state(make("compiled"))
    for name in ("model", "ema", "discriminator"):
        assert plain[name].keys() == compiled[name].keys()
        for key, value in plain[name].items():
            assert torch.allclose(value, compiled[name][key], atol=1e-4), key


def test_progress_goes_to_stderr(
    make: Callable[..., TrainConfig], capsys: pytest.CaptureFixture
) -> None:
    train(make(images=8), "cpu")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "val/mae" in captured.err


# --- options of the synthesis ---------------------------------------------------------------------


def test_a_run_with_the_projected_discriminator(
    make: Callable[..., TrainConfig], vgg: dict[str, Tensor], tmp_path: Path
) -> None:
    save_file(vgg, tmp_path / "vgg.safetensors")
    losses = LossWeights(perceptual=0.1, target_age=0.5, change=1, r1=0, wrong_age=0.5)
    features = dict(projected=True, age_features=True, vgg=tmp_path / "vgg.safetensors")
    config = make(losses=losses, **features)
    train(config, "cpu")
    last = _last_values(config)
    assert {"loss/D/wrong_age", "loss/G/perceptual"} <= last.keys()
    assert "loss/D/r1" not in last
    heads = {key.rpartition(".")[0] for key in _state(config)["discriminator"]}
    assert all(name.startswith("heads.") for name in heads)
    assert len({name.split(".")[1] for name in heads}) == 5


def test_the_discriminator_is_updated_on_the_replay_buffer(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(make(discriminator_updates=3, warmup_images=8, images=200), ALONE)
    places: list[int] = []

    def loss(discriminator: nn.Module, batch: DiscriminatorBatch, *rest: object) -> object:
        stored = [id(b.group) for b in trainer.state.replay_buffer]
        places.append(stored.index(id(batch.group)))
        return discriminator_loss(discriminator, batch, *rest)

    monkeypatch.setattr(training, "discriminator_loss", loss)
    for step in range(12):
        trainer.state.images_seen = 8 * (step + 1)
        next_step(trainer)
    assert places[::3] == list(range(12))  # first the new batch
    others = [place for i, place in enumerate(places) if i % 3]
    assert len(set(others)) > 4
    assert all(place <= i // 2 for i, place in enumerate(others))
    assert not trainer.state.replay_buffer[0].aged[0].requires_grad


@pytest.mark.parametrize(("updates", "batches"), [(1, 1), (2, 5)])
def test_the_replay_buffers_capacity_is_in_faces(
    make: Callable[..., TrainConfig],
    monkeypatch: pytest.MonkeyPatch,
    updates: int,
    batches: int,
) -> None:
    monkeypatch.setattr(state, "REPLAY_FACES", 40)
    config = make(discriminator_updates=updates, batch_size=8)
    assert state.make_replay_buffer(config).maxlen == batches


def test_padding_of_either_face_is_masked_in_both(
    make: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, inputs = make_trainer(make(diff_augment=False, warmup_images=8), ALONE), []
    trainer.state.images_seen = 8
    discriminator = trainer.networks.discriminator
    extract = discriminator.extract_features
    monkeypatch.setattr(discriminator, "extract_features", lambda x: inputs.append(x) or extract(x))
    prepare, batches = trainer._prepare, []
    monkeypatch.setattr(
        trainer, "_prepare", lambda *inputs: batches.append(prepare(*inputs)) or batches[-1]
    )
    next_step(trainer)
    assert len(inputs) == 2  # aged and real
    masked = (batches[0].shared_mask == 0).expand(-1, 3, -1, -1)
    assert masked.any()
    for faces in inputs:
        assert not faces[masked].any()
        assert faces[~masked].all()


def test_more_updates_change_the_discriminator_more(
    make: Callable[..., TrainConfig],
) -> None:
    def change(updates: int) -> float:
        trainer = make_trainer(make(discriminator_updates=updates, warmup_images=8), ALONE)
        trainer.state.images_seen = 8
        before = [p.detach().clone() for p in trainer.networks.discriminator.parameters()]
        next_step(trainer)
        after = trainer.networks.discriminator.parameters()
        return sum((a - b).abs().sum().item() for a, b in zip(after, before, strict=True))

    assert change(3) > 1.5 * change(1)


def test_lr_encoder_0_freezes_the_warm_ups_parts(make: Callable[..., TrainConfig]) -> None:
    short, longer = make("short", images=16), make("longer", lr_encoder=0.0)
    train(short, "cpu")
    train(longer, "cpu")
    before, after = _state(short)["model"], _state(longer)["model"]
    for part in ("encoder.", "decomposition.", "classifier."):
        names = [name for name in before if name.startswith(part)]
        assert names
        assert all(torch.equal(before[name], after[name]) for name in names)
    assert not torch.equal(before["decoder.residual.weight"], after["decoder.residual.weight"])
