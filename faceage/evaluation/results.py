"""The report of an evaluation as nested dataclasses, written to JSON and read back generically.

A field made by `measured` holds an `Estimate`, or None where nothing was measured. "The paper" is
"Facial Age Classification and Synthesis using Feature Decomposition" (Kim & Park 2023).
"""

import dataclasses
import json
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from faceage.errors import DataError


class AgeRange(NamedTuple):
    """A range of ages, as in the paper: whole years from `low` on and below `high`."""

    name: str
    target: float
    low: float
    high: float
    paper: float  # fraction of the aged faces whose predicted age is in the range


RANGES = (
    AgeRange("0-14", 7.0, 0, 15, 0.573),
    AgeRange("15-19", 17.0, 15, 20, 0.575),
    AgeRange("20-39", 30.0, 20, 40, 0.631),
    AgeRange("40-49", 45.0, 40, 50, 0.642),
    AgeRange("50+", 65.0, 50, float("inf"), 0.683),
)


def measured(label: str, digits: int = 1, paper: str = "") -> Any:
    """A field that holds an `Estimate` or None; a label with % is of fractions, in percent."""
    return field(default=None, metadata={"label": label, "digits": digits, "paper": paper})


def clean_text(text: str) -> str:
    """Text from outside as one printable line that can be written as UTF-8."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@dataclass(frozen=True)
class Estimate:
    """A statistic over `count` faces (a mean, unless said otherwise) with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None
    count: int | None = None


Measured = Estimate | None


@dataclass(frozen=True)
class Scores:
    """The main results of a method on some faces: all of them, or those of one gender."""

    accuracy: Measured = measured("age group: accuracy, %", paper="about 60")
    within_one_group: Measured = measured("age group: within one group, %", paper="more than 95")
    mae: Measured = measured("age: MAE, years")
    oldest_bias: Measured = measured("age: bias of 70+, years")
    reconstruction_l1: Measured = measured("reconstruction: L1", 4, "0.028")
    reconstruction_lpips: Measured = measured("reconstruction: LPIPS", 4, "0.072")
    cycle_l1: Measured = measured("cycle reconstruction: L1", 4, "0.040")
    cycle_lpips: Measured = measured("cycle reconstruction: LPIPS", 4, "0.155")
    in_range: Measured = measured("aged: predicted in the target's range, %")
    control_mae: Measured = measured("aged: MAE to the target, years")
    rising: Measured = measured("aged: steps at which the age rises, %")
    rank_correlation: Measured = measured("aged: rank correlation with target", 2)
    top1: Measured = measured("aged: identity, top-1 retrieval, %")
    gender: Measured = measured("aged: gender kept, %")


@dataclass(frozen=True)
class AgeResult:
    """Predicted ages of some faces: of an age group, degraded, or for an interval of the name."""

    name: str
    accuracy: Measured = measured("accuracy, %")
    within_one_group: Measured = measured("within one group, %")
    label: Measured = measured("mean label, years")
    predicted: Measured = measured("mean predicted age, years")
    mae: Measured = measured("MAE, years")
    bias: Measured = measured("bias, years")
    coverage: Measured = measured("label in the interval, %")
    width: Measured = measured("width of the interval, years")


@dataclass(frozen=True)
class RangeResult:
    """Faces aged to the target of an age range, and their distances from real faces of it."""

    name: str
    in_range: Measured = measured("predicted in range, %")
    predicted_age: Measured = measured("predicted age, years")
    kernel_distance: Measured = measured("kernel distance, inner face", 4)
    crop_kernel_distance: Measured = measured("kernel distance, crop", 4)
    frechet_distance: Measured = measured("Frechet distance, inner face", 2)
    kid: Measured = measured("KID", 4)
    fid: Measured = measured("FID", 2)


@dataclass(frozen=True)
class TargetResult:
    """Faces aged to one target.

    `real_age` is the predicted age of real faces near the target and `bias` that of the aged faces
    minus it; sharpness is a median, and skin how much lighter it becomes.
    """

    target: float
    predicted_age: Measured = measured("predicted age, years")
    mae: Measured = measured("MAE, years")
    real_age: Measured = measured("predicted age of real faces, years")
    bias: Measured = measured("bias, years")
    top1: Measured = measured("top-1 retrieval, %")
    similarity: Measured = measured("cosine similarity", 2)
    women: Measured = measured("women, %")
    men: Measured = measured("men, %")
    sharpness_before: Measured = measured("before", 0)
    sharpness_after: Measured = measured("after", 0)
    sharpness_ratio: Measured = measured("ratio", 2)
    skin_darkest: Measured = measured("darkest fifth")
    skin_lightest: Measured = measured("lightest fifth")


@dataclass(frozen=True)
class MethodInfo:
    """A method: a weights file of this package, or a folder of result pictures."""

    name: str
    kind: str
    file: str
    sha256: str | None = None
    size: int | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodResult:
    """Everything measured of one method."""

    info: MethodInfo
    scores: Scores
    genders: dict[str, Scores]
    groups: tuple[AgeResult, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()  # counts of faces, the true groups as rows
    intervals: tuple[AgeResult, ...] = ()
    robustness: tuple[AgeResult, ...] = ()
    ranges: tuple[RangeResult, ...] = ()  # and "mean", the means of their distances
    targets: tuple[TargetResult, ...] = ()
    sheets: dict[str, str] = field(default_factory=dict)  # file names by kind


@dataclass(frozen=True)
class Report:
    """The results of `faceage evaluate`."""

    faceage: str
    command: str | None
    data: str
    split: str
    faces: int
    groups: dict[str, int]  # how many of the faces
    genders: dict[str, int]
    limit: int  # how many faces are aged at most
    seed: int
    targets: tuple[float, ...]  # of age control, years
    ranges: dict[str, float]  # the target of each age range, years
    evaluators: dict[str, str]  # their names and the sha256 of their files
    real_groups: tuple[AgeResult, ...]  # the age evaluator on real faces
    real_ranges: tuple[RangeResult, ...]
    methods: tuple[MethodResult, ...]
    remarks: tuple[str, ...]
    schema: int = 3  # of the JSON

    def to_json(self) -> str:
        """The report as JSON."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def read(cls, path: str | Path) -> "Report":
        """The report in a report.json.

        Raises:
            DataError: it is missing, damaged, or of another version.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if values["schema"] != cls.schema:
                raise ValueError(f"schema {values['schema']}, not {cls.schema}")
            report: Report = _build(cls, values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Cannot read {path} ({error}).", "Run faceage evaluate again."
            ) from None
        return report


def _build(kind: Any, value: Any) -> Any:
    """A JSON value as the annotated type: dataclasses, tuples and dicts, nested."""
    if value is None:
        return None
    if isinstance(kind, types.UnionType):  # X | None
        kind = get_args(kind)[0]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _build(hints[name], part) for name, part in value.items()})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(_build(get_args(kind)[0], part) for part in value)
    if get_origin(kind) is dict:
        return {name: _build(get_args(kind)[1], part) for name, part in value.items()}
    return value
