"""Fuzzing of what reads weights and training states, with mutated files.

    python tests/fuzz_weights.py COUNT [FIRST]

makes the mutated files number FIRST (default 0) to FIRST + COUNT - 1, the same in every run, and
gives each to all readers. A reader may accept a file or raise a FaceAgeError of one line. The run
ends with exit code 1 and the number of the file on any other exception, after more than
`MAX_SECONDS` of processor time for a file, or at more than `MAX_MEGABYTES` of additional memory.
"""

import contextlib
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from fuzzing import ANY, Reader, fuzz
from typer.testing import CliRunner

from faceage import hub
from faceage.checkpoints import load_state, load_weights, read_tensors, save_state, save_weights
from faceage.cli import app
from faceage.errors import FaceAgeError
from faceage.models.architecture import ModelConfig
from faceage.models.generator import FaceAgeModel

MAX_SECONDS = 2.0
MAX_MEGABYTES = 200.0

VALUES = (-1, 0, 1, 16, 100_000, 2**63, 10**4000, 0.5, True, None, "x", "\n", [], {}, [0] * 1000)


# --- mutations of a safetensors file --------------------------------------------------------------


def with_header(data: bytes, header: bytes) -> bytes:
    """The same tensors under another header."""
    start = 8 + int.from_bytes(data[:8], "little")
    return len(header).to_bytes(8, "little") + header + data[start:]


def change_length(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    lengths = (0, 1, 2, len(data) - 8, len(data) - 7, 2**31, 2**63, 2**64 - 1, rng.integers(2**20))
    return int(lengths[rng.integers(len(lengths))]).to_bytes(8, "little") + data[8:]


def nest(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    """Deeply nested JSON as the header, or as the config in it."""
    text = rng.choice(["[", '{"a":']) * int(rng.integers(1, 200_000))
    if rng.random() < 0.5:
        return with_header(data, b'{"a":' + text.encode())
    return with_config(data, text)


def change_config(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    config = json.loads(header_of(data)["__metadata__"]["config"])
    for name in rng.choice(list(config), rng.integers(1, 4)):
        config[str(name)] = VALUES[rng.integers(len(VALUES))]
    return with_config(data, json.dumps(config))


def change_tensor(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    """Another type, shape or place of one tensor, or another value in place of its description."""
    header = header_of(data)
    name = str(rng.choice([name for name in header if name != "__metadata__"]))
    key = str(rng.choice(["dtype", "shape", "data_offsets", ""]))
    value = VALUES[rng.integers(len(VALUES))]
    if key == "dtype":
        value = str(rng.choice(["F32", "F16", "F64", "I16", "BOOL", "F8_E4M3", "C64", "Q7"]))
    elif key and rng.random() < 0.7:
        numbers = header[name][key]
        numbers[rng.integers(len(numbers))] = int(rng.choice([-1, 0, 1, 2**32, 2**62]))
        value = numbers
    if key:
        header[name][key] = value
    else:
        header[name] = value
    return with_header(data, json.dumps(header).encode())


def header_of(data: bytes) -> dict:
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])


def with_config(data: bytes, config: str) -> bytes:
    header = header_of(data)
    header["__metadata__"]["config"] = config
    return with_header(data, json.dumps(header).encode())


SAFETENSORS = (*ANY, change_length, nest, change_config, change_tensor)


# --- mutations of a state -------------------------------------------------------------------------


def change_member(rng: np.random.Generator, data: bytes, end: int) -> bytes:
    """Mutate one file of the archive and write it with a correct checksum."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(result, "w") as new:
        names = old.namelist()
        target = names[0] if rng.random() < 0.7 else rng.choice(names)  # data.pkl is the first
        for name in names:
            content = old.read(name)
            if name == target:
                content = ANY[rng.integers(len(ANY))](rng, content, len(content))
            new.writestr(name, content)
    return result.getvalue()


STATE = (*ANY, change_member, change_member, change_member)


# --- the run --------------------------------------------------------------------------------------


def show_info(path: Path) -> None:
    """`faceage weights info`."""
    answer = CliRunner().invoke(app, ["weights", "info", str(path)])
    if answer.exception is not None and not isinstance(answer.exception, SystemExit):
        raise answer.exception
    if answer.exit_code:
        (line,) = answer.stderr.splitlines()
        assert "FACEAGE_DEBUG" not in line, line
        raise FaceAgeError(line)


def main(count: int, first: int = 0) -> int:
    readers: dict[str, tuple[Reader, ...]] = {
        "w.safetensors": (load_weights, hub.read_metadata, show_info, read_tensors),
        "state.pt": (load_state, read_tensors),
    }
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights, state = (Path(folder, name) for name in readers)
        config = ModelConfig(32, 32, 16, 1, 1, 0)
        save_weights(weights, FaceAgeModel(config), {"images_seen": "0"})
        tensors = {"a": torch.rand(9, 7), "b": torch.arange(5), "c": [1, 2.5, "text", None, True]}
        save_state(state, {"images_seen": 7, "config": {"lr": 0.1}, "model": tensors})
        originals = {path: path.read_bytes() for path in (weights, state)}
        for path in originals:
            for read in readers[path.name]:
                with contextlib.suppress(FaceAgeError):  # a state is no dict of tensors
                    read(path)

        def make(number: int, rng: np.random.Generator) -> tuple[str, Path, tuple[Reader, ...]]:
            path = weights if number % 2 else state
            data = originals[path]
            mutations = SAFETENSORS if path == weights else STATE
            mutate = mutations[rng.integers(len(mutations))]
            # Half of the time only the header, which is a small part of the file.
            end = 8 + int.from_bytes(data[:8], "little") if path == weights else len(data)
            path.write_bytes(mutate(rng, data, end if rng.random() < 0.5 else len(data)))
            return mutate.__name__, path, readers[path.name]

        return fuzz(make, count, first, MAX_SECONDS, MAX_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
