"""Model files: where they are on this machine, how they are downloaded and verified.

A name is looked up in the folder `weights/` of the package (in a checkout it lies beside the
package), then in the user's cache. Nothing is downloaded unless `fetch` is called, and a download
is kept only if its sha256 is the one in `REGISTRY`. Importing this module imports nothing heavy.
"""

import hashlib
import json
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from faceage.errors import WeightsError

DEFAULT = "paired-128"
CHECKSUMS = "SHA256SUMS"
EXPORT_DESCRIPTION = "model.json"  # in a folder written by `faceage export`
MAX_HEADER = 1 << 20  # bytes, of a safetensors file; the packaged model's header has 15,000

_CHUNK = 1 << 20  # bytes
_TIMEOUT = 60  # seconds without an answer


@dataclass(frozen=True)
class WeightsFile:
    """A model file with a name.

    Attributes:
        file: its file name, in `weights/` or in the cache.
        description: one line for `faceage weights list`.
        licence: of the file, one line.
        url: where it is fetched from; "" for a file that is part of the package.
        sha256: of a file with a URL; that of a packaged file is in `weights/SHA256SUMS`.
        size: bytes, for the progress display if the server does not state it; 0 if unknown.
    """

    file: str
    description: str
    licence: str
    url: str = ""
    sha256: str = ""
    size: int = 0


REGISTRY: dict[str, WeightsFile] = {
    DEFAULT: WeightsFile(
        file="paired-128.safetensors",
        description="age prediction and ageing, 128 px, for CPUs; the default",
        licence="non-commercial research (see the model card)",
    ),
    "compact-128": WeightsFile(
        file="compact-128.safetensors",
        description="smaller, with milder ageing and less accurate age prediction",
        licence="non-commercial research (see the model card)",
    ),
    "distilled-128": WeightsFile(
        file="distilled-128.safetensors",
        description="the encoder and classifier from which paired-128 was trained",
        licence="non-commercial research (see the model card)",
    ),
    "head-segmenter": WeightsFile(
        file="head-segmenter.onnx",
        description="separates the head from the background, when ageing",
        licence="non-commercial research (see the model card)",
    ),
    "retinaface": WeightsFile(
        file="detection_mobilenet0.25_Final.pth",
        description="RetinaFace (MobileNet 0.25) face detector, for --detector retinaface",
        licence="MIT",
        url="https://github.com/xinntao/facexlib/releases/download/v0.1.0/"
        "detection_mobilenet0.25_Final.pth",
        sha256="2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        size=1_789_735,
    ),
    "vgg19": WeightsFile(
        file="vgg19-dcbb9e9d.pth",
        description="VGG19 (torchvision), for --vgg: features for the losses of training",
        licence="BSD-3-Clause (torchvision); trained on ImageNet",
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        size=574_673_361,
    ),
}


@dataclass(frozen=True)
class Status:
    """A model file and its place; `path` is None if it is not on this machine."""

    name: str
    path: Path | None
    description: str
    licence: str


@dataclass(frozen=True)
class Check:
    """The result of verifying one file; `problem` is "" if there is none."""

    path: Path
    sha256: str
    problem: str


def packaged_dir() -> Path:
    """The folder of the model files in the package; it need not exist."""
    inside = Path(__file__).parent / "weights"  # in a wheel
    return inside if inside.is_dir() else Path(__file__).parent.parent / "weights"  # in a checkout


def is_exported(weights: str | Path) -> bool:
    """Whether weights are a folder, as `faceage export` writes it."""
    return str(weights) not in REGISTRY and Path(weights).is_dir()


def identify(weights: str | Path | None = None) -> str:
    """The sha256 of a model's file; of an exported model, that of its description.

    Raises:
        WeightsError: there is no such file.
    """
    if weights is not None and is_exported(weights):
        return file_sha256(Path(weights) / EXPORT_DESCRIPTION)
    return file_sha256(find(weights))


def cache_dir() -> Path:
    """The user's cache: `$FACEAGE_CACHE`, else the platform's default; it need not exist."""
    if own := os.environ.get("FACEAGE_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "faceage"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "faceage"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "faceage"


def find(name: str | Path | None = None) -> Path:
    """The path of a model file, given its name ("retinaface") or path; None: the default model.

    Raises:
        WeightsError: there is no such name or file, or it is not on this machine.
    """
    text = DEFAULT if name is None else str(name)
    if text in REGISTRY:
        entry = REGISTRY[text]
        if path := _locate(entry.file):
            return path
        if entry.url:
            raise WeightsError(
                f"The weights {text!r} are not on this machine.",
                f"Get them with: faceage weights fetch {text}",
            )
        raise WeightsError(
            f"The weights {text!r} are missing from {packaged_dir()}.",
            "Reinstall the package, or give a file with --weights.",
        )
    if path := _locate(f"{text}.safetensors"):  # a model that the user put there
        return path
    path = Path(text)
    with suppress(RuntimeError):  # "~name" of an unknown user
        path = path.expanduser()
    check_file(path)
    return path


def status() -> list[Status]:
    """All model files: those of the registry, then other .safetensors files in their folders."""
    known = [
        Status(name, _locate(entry.file), entry.description, entry.licence)
        for name, entry in REGISTRY.items()
    ]
    files = {entry.file for entry in REGISTRY.values()}
    for folder in (packaged_dir(), cache_dir()):
        for path in sorted(folder.glob("*.safetensors")):
            if path.name not in files:
                files.add(path.name)
                known.append(Status(path.stem, path, "", ""))
    return known


def check_file(path: Path) -> int:
    """The size of a regular file, in bytes.

    Devices and pipes are refused without opening them: reading one may never end.

    Raises:
        WeightsError: it is missing, no regular file, or cannot be accessed.
    """
    try:
        info = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: NUL in name
        known = ", ".join(REGISTRY)
        raise WeightsError(
            f"No weights file {path}.", f"Give a path, or one of: {known}."
        ) from error
    except OSError as error:
        raise WeightsError(f"Cannot read {path}: {error.strerror}.") from error
    if stat.S_ISDIR(info.st_mode):
        raise WeightsError(f"{path} is a folder, not a weights file.", "Give a file in it.")
    if not stat.S_ISREG(info.st_mode):
        raise WeightsError(f"{path} is a device or a pipe, not a weights file.", "Give a file.")
    return info.st_size


def file_sha256(path: Path) -> str:
    """The sha256 of a regular file, as 64 hex digits.

    Raises:
        WeightsError: it cannot be read.
    """
    check_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"Cannot read {path}: {error.strerror}.") from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; reads its header, at most `MAX_HEADER` bytes.

    Raises:
        WeightsError: it cannot be read, is truncated, or is not a safetensors file.
    """
    size = check_file(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if MAX_HEADER < length <= size - 8:
                raise WeightsError(
                    f"{path} has a header of {length:,} bytes, more than {MAX_HEADER:,}.",
                    "Give weights of faceage.",
                )
            if not 2 <= length <= size - 8:
                raise ValueError
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        end = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
        if size != end or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError
    except OSError as error:
        raise WeightsError(f"Cannot read {path}: {error.strerror}.") from error
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise WeightsError(
            f"{path} is truncated, damaged or not a safetensors file ({size:,} bytes).",
            "Copy or fetch it again.",
        ) from None
    return dict(metadata)


def fetch(
    name: str, *, force: bool = False, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Download a model file into the user's cache, unless an intact one is there.

    The file gets its name only after its sha256 was verified; a failed download changes nothing.

    Args:
        force: download even if an intact file is there.
        progress: called with the bytes received so far and in all (0 if unknown).

    Raises:
        WeightsError: unknown name, no connection, wrong sha256, or the cache cannot be written.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        fetchable = ", ".join(n for n, e in REGISTRY.items() if e.url)
        raise WeightsError(f"Unknown weights {name!r}.", f"These can be fetched: {fetchable}.")
    if not entry.url:
        return find(name)  # part of the package
    target = cache_dir() / entry.file
    if not force and target.is_file() and file_sha256(target) == entry.sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
            partial = _download(entry, Path(folder), progress)
            partial.chmod(0o644)  # pooch's temporary files are for their owner alone
            partial.replace(target)
    except OSError as error:
        raise WeightsError(
            f"Cannot write into {target.parent}: {error.strerror}.",
            "Set FACEAGE_CACHE to a folder that can be written.",
        ) from error
    return target


def _download(
    entry: WeightsFile, folder: Path, progress: Callable[[int, int], None] | None
) -> Path:
    """Download a file into `folder` and verify it; OSError if the folder cannot be written."""
    import pooch
    from requests import RequestException

    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(
        progressbar=_Progress(progress, entry.size) if progress else False,
        chunk_size=_CHUNK,
        timeout=_TIMEOUT,
    )
    try:
        path = pooch.retrieve(
            entry.url, f"sha256:{entry.sha256}", entry.file, folder, downloader=downloader
        )
        return Path(path)
    except RequestException as error:
        raise WeightsError(
            f"Cannot download {entry.url}: {_root_cause(error)}.",
            f"Download it by other means and save it as {cache_dir() / entry.file}",
        ) from error
    except ValueError as error:
        raise WeightsError(
            f"Deleted the download of {entry.url}: its sha256 is not {entry.sha256[:12]}...",
            "Try again; if the error stays, the file on the server has changed: do not use it.",
        ) from error


class _Progress:
    """A progress bar as pooch expects one; reports the bytes received so far and in all."""

    def __init__(self, report: Callable[[int, int], None], size: int) -> None:
        self.report, self.size = report, size
        self.total = 0  # set by pooch; 0 if the server does not state it
        self.received = 0

    def update(self, count: int) -> None:
        total = self.total or self.size
        self.received += count
        if total:  # pooch counts whole chunks, and the total once more at the end
            self.received = min(self.received, total)
        self.report(self.received, total)

    def reset(self) -> None: ...

    def close(self) -> None: ...


def _root_cause(error: BaseException) -> str:
    """The first error of a chain, in one line: "Connection refused"."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(text.partition(" for url:")[0].split())[:200]


def verify(name: str | Path | None = None) -> list[Check]:
    """Compare the sha256 of one model file, or of all on this machine, with the expected one.

    The expected sha256 of a packaged file is in `SHA256SUMS` beside it, that of a fetched file in
    the registry.

    Raises:
        WeightsError: the file does not exist, or `SHA256SUMS` is malformed.
    """
    expected = dict(_expected())
    if name is None:
        paths = list(dict.fromkeys([*expected, *(s.path for s in status() if s.path)]))
    else:
        paths = [find(name).absolute()]
    return [_check(path, expected.get(path)) for path in paths]


def _check(path: Path, expected: str | None) -> Check:
    if not path.exists():
        return Check(path, "", "missing")
    digest = file_sha256(path)
    if expected is None:
        problem = f"not listed in {CHECKSUMS}"
        if path.suffix == ".safetensors":
            try:
                read_metadata(path)
            except WeightsError:
                problem = "truncated, damaged or not a safetensors file"
        return Check(path, digest, problem)
    return Check(path, digest, "" if digest == expected else f"changed: should be {expected}")


def _expected() -> Iterator[tuple[Path, str]]:
    sums = packaged_dir() / CHECKSUMS
    if sums.exists():
        for line in sums.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            digest, _, file = line.partition(" ")  # sha256sum's format: digest, two spaces, name
            if len(digest) != 64 or not file.strip(" *"):
                raise WeightsError(f"{sums} has a malformed line: {line!r}.")
            yield (packaged_dir() / file.strip(" *")).absolute(), digest.lower()
    for entry in REGISTRY.values():
        path = _locate(entry.file)
        if entry.sha256 and path:
            yield path.absolute(), entry.sha256


def _locate(file: str) -> Path | None:
    for folder in (packaged_dir(), cache_dir()):
        path = folder / file
        with suppress(OSError):  # the name is too long for a file, or the folder is not accessible
            if path.is_file():
                return path.absolute()
    return None
