"""Weights and training states: round trips, invalid files, atomic writes."""

import copy
import dataclasses
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import TINY
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from faceage.checkpoints import (
    FORMAT,
    LIMITS,
    check_config,
    interpolate_weights,
    load_state,
    load_weights,
    read_metadata,
    read_tensors,
    recalibrate,
    save_state,
    save_weights,
)
from faceage.errors import OutputError, WeightsError
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel


@pytest.fixture(scope="module")
def model() -> FaceAgeModel:
    torch.manual_seed(0)
    return FaceAgeModel(TINY)


@pytest.fixture
def weights(tmp_path: Path, model: FaceAgeModel) -> Path:
    return save_weights(tmp_path / "w.safetensors", model, {"licence": "none", "images_seen": "7"})


def _resaved(path: Path, *, drop: str = "", **metadata: str) -> Path:
    """The file again, with other metadata or without one tensor."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        known = file.metadata()
    tensors.pop(drop, None)
    save_file(tensors, path, known | metadata)
    return path


# --- weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("decomposition", [True, False])
def test_round_trip(tmp_path: Path, decomposition: bool) -> None:
    torch.manual_seed(0)
    config = ModelConfig(**{**TINY.__dict__, "decomposition": decomposition})
    model = FaceAgeModel(config).to(memory_format=torch.channels_last)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    metadata = {"licence": "none", "figures": '{"mae": 5.1}', "format": "ignored"}
    loaded, read = load_weights(save_weights(tmp_path / "w.safetensors", model, metadata))
    assert loaded.config == config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert read["licence"] == "none"
    assert read["figures"] == '{"mae": 5.1}'
    assert read["format"] == FORMAT == "faceage-1"
    assert json.loads(read["config"])["width"] == 16
    for name, value in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            precise = value.half().float() if value.ndim > 1 else value
            assert torch.equal(loaded.state_dict()[name], precise), name


def test_matrices_are_float16_and_the_rest_float32(weights: Path) -> None:
    with safe_open(weights, "pt") as file:
        dtypes = {n: file.get_tensor(n).dtype for n in file.keys()}  # noqa: SIM118
    assert dtypes["encoder.stem.0.weight"] == torch.float16
    assert dtypes["age_feature_cnn.embedding.table.weight"] == torch.float16
    assert dtypes["encoder.stem.1.running_var"] == torch.float32  # may exceed what half can hold
    assert dtypes["classifier.head.bias"] == torch.float32
    assert not any(name.endswith("num_batches_tracked") for name in dtypes)


def test_loaded_weights_compute_the_same(weights: Path, model: FaceAgeModel) -> None:
    loaded, _ = load_weights(weights)
    faces = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected = model.eval().age_logits(faces)
        assert torch.allclose(loaded.age_logits(faces), expected, atol=0.02)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No weights file"):
        load_weights(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match="is a folder"):
        load_weights(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated(weights: Path, share: float) -> None:
    data = weights.read_bytes()
    weights.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(WeightsError, match="truncated, damaged or not a safetensors file"):
        load_weights(weights)


@pytest.mark.parametrize(
    "content", [b"just some text, long enough for a header", b"\x00" * 100, b"PK\x03\x04" * 20]
)
def test_not_safetensors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.safetensors is truncated, damaged or not"):
        load_weights(path)


def test_a_pickle_is_not_loaded(tmp_path: Path, model: FaceAgeModel) -> None:
    torch.save(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "faceage-2"}])
def test_safetensors_of_other_programs(tmp_path: Path, metadata: dict | None) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata)
    with pytest.raises(WeightsError, match="was not written by faceage"):
        load_weights(path)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("not json", "Expecting value"),
        ("", "Expecting value"),
        ("[1, 2]", "mapping"),
        ("7", "mapping"),
        ("[" * 100_000, "recursion"),
        ('{"nonsuch": 1}', "nonsuch"),
        ('{"line\\nbreak": 1}', "line"),
        ('{"width": "wide"}', "width is 'wide', which is not of type int"),
        ('{"size": "large"}', "size is 'large'"),
        ('{"width": 16.0}', "width is 16.0"),
        ('{"width": null}', "width is None"),
        ('{"width": true}', "width is True"),
        ('{"size": NaN}', "size is nan"),
        ('{"decomposition": 1}', "decomposition is 1, which is not of type bool"),
        ('{"width": -16}', "width is -16, must be from 16 to 256"),
        ('{"width": 0}', "width is 0"),
        ('{"width": 40}', "width is 40, must be a multiple of 16"),
        ('{"width": 100000}', "width is 100000"),
        ('{"width": 1' + "0" * 4000 + "}", "width is 1000"),
        ('{"width": 1' + "0" * 5000 + "}", "4300 digits"),
        ('{"size": 1048576}', "size is 1048576, must be from 32 to 1024"),
        ('{"size": 96}', "size is 96, must be a power of two"),
        ('{"size": 512, "fine_level": true}', "must be at most 256 with a fine level"),
        ('{"classifier_size": 1024}', "classifier_size is 1024"),
        ('{"encoder_blocks": 1000000}', "encoder_blocks is 1000000, must be from 1 to 16"),
        ('{"encoder_blocks": 0}', "encoder_blocks is 0"),
        ('{"decoder_blocks": -1, "width": 8}', "width is 8, must be from 16 to 256; decoder_bl"),
    ],
)
def test_an_architecture_that_cannot_be_built(weights: Path, config: str, says: str) -> None:
    with pytest.raises(
        WeightsError, match="has an architecture that this version cannot"
    ) as caught:
        load_weights(_resaved(weights, config=config))
    assert says in caught.value.message
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("recipe", [{}, {"size": 128, "width": 32}, {"decomposition": False}])
def test_architectures_of_the_recipes_can_be_built(recipe: dict) -> None:
    assert check_config(ModelConfig(**recipe)) == []
    assert check_config(ModelConfig.compact(**recipe)) == []


def test_every_number_of_an_architecture_is_limited() -> None:
    numbers = {f.name for f in dataclasses.fields(ModelConfig) if type(f.default) is int}
    assert LIMITS.keys() == numbers
    for limit in (0, 1):
        config = ModelConfig(**{name: limits[limit] for name, limits in LIMITS.items()})
        assert check_config(config) == []


def test_smallest_network_runs() -> None:
    config = ModelConfig(**{name: low for name, (low, _, _) in LIMITS.items()})
    model = FaceAgeModel(config).eval()
    faces = torch.zeros(1, 3, config.size, config.size)
    with torch.no_grad():
        assert model.decode(model.encode(faces), torch.zeros(1)).residual.shape == faces.shape
        assert model.age_logits(faces).shape == (1, 101)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (dict(width=32), r"has shape \(16"),
        (dict(decoder_blocks=2), "missing"),
        (dict(decomposition=False), "not part of its architecture"),
    ],
)
def test_tensors_of_another_architecture(weights: Path, change: dict, says: str) -> None:
    config = json.loads(read_metadata(weights)["config"]) | change
    with pytest.raises(WeightsError, match=says):
        load_weights(_resaved(weights, config=json.dumps(config)))


def test_tensors_of_another_type(weights: Path) -> None:
    with safe_open(weights, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    tensors["decoder.flow.bias"] = tensors["decoder.flow.bias"].int()
    save_file(tensors, weights, metadata)
    with pytest.raises(WeightsError, match=r"decoder\.flow\.bias has values of type I32"):
        load_weights(weights)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["decoder.residual.weight", "classifier.head.bias"])
def test_values_that_are_not_finite(tmp_path: Path, name: str, value: float) -> None:
    model = FaceAgeModel(TINY)
    with torch.no_grad():
        model.get_parameter(name).view(-1)[-1] = value
    path = save_weights(tmp_path / "w.safetensors", model, {})
    with pytest.raises(WeightsError, match=f"{name} has values that are not finite"):
        load_weights(path)


def test_negative_variances(tmp_path: Path) -> None:
    model = FaceAgeModel(TINY)
    model.get_buffer("encoder.stem.1.running_var")[0] = -1
    path = save_weights(tmp_path / "w.safetensors", model, {})
    with pytest.raises(WeightsError, match=r"encoder\.stem\.1\.running_var has negative variances"):
        load_weights(path)


MEASURE = """
import json, resource, sys, time
from faceage.checkpoints import load_weights
from faceage.errors import WeightsError

load_weights(sys.argv[1])  # excludes what torch does once per process
for path in sys.argv[2:]:
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        load_weights(path)
        message = ""
    except WeightsError as error:
        message = str(error)
    seconds = time.process_time() - start
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    print(json.dumps([message, seconds, more / 1024]))
"""


def test_hostile_files_are_refused_fast_and_without_large_allocations(
    weights: Path, tmp_path: Path, model: FaceAgeModel
) -> None:
    largest = {name: high for name, (_, high, _) in LIMITS.items()}
    paths = []
    for change in (
        {"encoder_blocks": 1_000_000},
        {"width": 100_000},
        {"size": 1_048_576},
        largest,
        {"config": "[" * 500_000},
    ):
        path = tmp_path / f"{len(paths)}.safetensors"
        path.write_bytes(weights.read_bytes())
        config = change.pop("config", None) or json.dumps(vars(TINY) | change)
        paths.append(_resaved(path, config=config))
    broken = copy.deepcopy(model)
    torch.nn.init.constant_(broken.classifier.head.weight, math.nan)
    paths.append(save_weights(tmp_path / "nan.safetensors", broken, {}))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(weights), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == len(paths)
    for message, seconds, megabytes in results:
        assert message
        assert seconds < 1
        assert megabytes < 200


def test_a_missing_tensor(weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"decoder\.flow\.bias is missing"):
        load_weights(_resaved(weights, drop="decoder.flow.bias"))


# --- state ----------------------------------------------------------------------------------------


def test_state_round_trip(tmp_path: Path) -> None:
    state = {"images_seen": 7, "config": {"lr": 0.1}, "model": {"a": torch.arange(3)}}
    path = save_state(tmp_path / "run" / "state.pt", state)
    loaded = load_state(path)
    assert loaded["images_seen"] == 7
    assert loaded["config"] == {"lr": 0.1}
    assert torch.equal(loaded["model"]["a"], torch.arange(3))


class _RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("read", [load_state, read_tensors])
def test_pickles_that_run_code_are_refused(tmp_path: Path, read) -> None:
    trace = tmp_path / "trace"
    torch.save({"images_seen": 0, "config": {}, "code": _RunsCode(trace)}, tmp_path / "state.pt")
    with pytest.raises(WeightsError) as caught:
        read(tmp_path / "state.pt")
    assert not trace.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04"])
def test_damaged_state(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable training state"):
        load_state(tmp_path / "state.pt")


def test_a_changed_value_in_a_state_is_noticed(tmp_path: Path) -> None:
    values = torch.arange(1000.0)
    path = save_state(tmp_path / "state.pt", {"images_seen": 1, "config": {}, "a": values})
    content = bytearray(path.read_bytes())
    content[content.index(values.numpy().tobytes()) + 402] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"data/0 is damaged"):
        load_state(path)


def test_a_state_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    state = {"images_seen": 1, "config": {}, "a": torch.zeros(100_000)}
    path = save_state(tmp_path / "state.pt", state)
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))
    assert packed.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="larger than its file"):
        load_state(packed)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (Path("/dev/zero"), tmp_path / "pipe"):
        for read in (load_weights, load_state, read_tensors):
            with pytest.raises(WeightsError, match="is a device or a pipe"):
                read(path)


@pytest.mark.parametrize("content", [{"model": {}}, {"images_seen": 1}, [1], torch.zeros(2)])
def test_not_a_state(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(WeightsError, match="not a training state"):
        load_state(tmp_path / "state.pt")


def test_read_tensors(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3).half()}
    save_file(tensors, tmp_path / "t.safetensors")
    torch.save(tensors, tmp_path / "t.pth")
    for name in ("t.safetensors", "t.pth"):
        value = read_tensors(tmp_path / name)["a"]
        assert value.dtype == torch.float32
        assert value.tolist() == [0, 1, 2]
    for path in (tmp_path / "gone.pth", tmp_path / "gone.safetensors"):
        with pytest.raises(WeightsError, match="No weights file"):
            read_tensors(path)


# --- writing --------------------------------------------------------------------------------------


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path: Path, model: FaceAgeModel) -> None:
    for _ in range(2):
        save_weights(tmp_path / "w.safetensors", model, {})
        save_state(tmp_path / "state.pt", {"images_seen": 1, "config": {}})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.pt", "w.safetensors"]


def _write(kind: str, path: Path, model: FaceAgeModel) -> None:
    if kind == "weights":
        save_weights(path, model, {})
    else:
        save_state(path, {"images_seen": 1, "config": {}})


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_files_have_ordinary_permissions(tmp_path: Path, model: FaceAgeModel, kind: str) -> None:
    (tmp_path / "ordinary").touch()
    _write(kind, tmp_path / "file", model)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, model: FaceAgeModel, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old"
    path.write_text("old")

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        _write(kind, path, model)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("error", [RuntimeError("disk\nfull"), OSError("no strerror")])
def test_errors_of_the_writing_library(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OutputError, match="Cannot write") as caught:
        save_state(tmp_path / "state.pt", {})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["weights", "state"])
def test_unwritable_places(tmp_path: Path, model: FaceAgeModel, kind: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "below", tmp_path / "folder"):
        with pytest.raises(OutputError, match="Cannot write"):
            _write(kind, path, model)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


# --- batch statistics -----------------------------------------------------------------------------


def test_recalibration_takes_the_mean_over_the_batches() -> None:
    norm = nn.BatchNorm2d(1, momentum=0.1).eval()
    norm.running_mean.fill_(99.0)
    batches = [torch.full((2, 1, 2, 2), float(v)) for v in (1, 2, 6)]
    batches[2][0] = 4.0  # 4 and 6: mean 5, variance 8/7 (unbiased)
    recalibrate([norm], lambda number: norm(batches[number]), 3)
    assert norm.running_mean.item() == pytest.approx((1 + 2 + 5) / 3)
    assert norm.running_var.item() == pytest.approx(8 / 7 / 3)
    assert norm.momentum == 0.1
    assert not norm.training


# --- interpolation --------------------------------------------------------------------------------


def test_interpolation_keeps_a_fine_level(
    tmp_path: Path, tiny_weights: Path, fine_weights: Path
) -> None:
    fine, _ = load_weights(fine_weights)
    model, _ = load_weights(tiny_weights)
    with torch.no_grad():
        model.decoder.residual.weight.add_(1)
    save_weights(tmp_path / "tuned.safetensors", model, {"licence": "none"})
    save_weights(tmp_path / "fine.safetensors", fine, {"fine_level": "its own run"})
    paths = tmp_path / "fine.safetensors", tmp_path / "tuned.safetensors"
    for before, after in (paths, paths[::-1]):
        out = interpolate_weights(before, after, 0.5, tmp_path / "mean.safetensors")
        mean, metadata = load_weights(out)
        assert mean.config.fine_level
        assert metadata["fine_level"] == "its own run"
        for name, value in mean.fine_level.state_dict().items():
            assert torch.equal(value, fine.fine_level.state_dict()[name])
        expected = (fine.decoder.residual.weight + model.decoder.residual.weight) / 2
        assert torch.allclose(mean.decoder.residual.weight, expected, atol=1e-3)


def test_interpolated_weights_lie_between(tmp_path: Path) -> None:
    first, second = FaceAgeModel(TINY), FaceAgeModel(TINY)
    second.encoder.load_state_dict(first.encoder.state_dict())
    second.decomposition.load_state_dict(first.decomposition.state_dict())
    second.classifier.load_state_dict(first.classifier.state_dict())
    paths = [tmp_path / f"{name}.safetensors" for name in ("first", "second", "mean")]
    for path, model in zip(paths, (first, second), strict=False):
        save_weights(path, model, {"figures": "{}", "licence": "of the fine-tuned"})
    mean, metadata = load_weights(interpolate_weights(paths[0], paths[1], 0.25, paths[2]))
    states = first.state_dict(), second.state_dict()
    for name, value in mean.state_dict().items():
        expected = 0.75 * states[0][name].float() + 0.25 * states[1][name].float()
        assert torch.allclose(value.float(), expected, atol=3e-3), name
    assert metadata["licence"] == "of the fine-tuned"
    assert json.loads(metadata["interpolated"])["fraction"] == 0.25
    assert metadata["figures"] == "{}"  # the same classifier
    save_weights(paths[1], FaceAgeModel(TINY), {"figures": "{}"})
    assert "figures" not in load_weights(interpolate_weights(*paths[:2], 0.5, paths[2]))[1]
    save_weights(paths[1], FaceAgeModel(dataclasses.replace(TINY, decoder_blocks=2)), {})
    with pytest.raises(WeightsError, match="differ in architecture"):
        interpolate_weights(*paths[:2], 0.5, paths[2])
