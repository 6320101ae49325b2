"""Reports made up for tests: a full one, and one of a single model without evaluators.

The values are invented, but such as real models give; most differ from all others, so that a test
finds them again.
"""

import dataclasses
import io
import math
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageDraw

from faceage.ages import GROUP_NAMES
from faceage.evaluation.results import (
    RANGES,
    AgeResult,
    Estimate,
    MethodInfo,
    MethodResult,
    RangeResult,
    Report,
    Scores,
    TargetResult,
)
from faceage.imaging.drawing import contact_sheet

GROUPS = dict(zip(GROUP_NAMES, (81, 62, 62, 52, 77, 533, 391, 219, 304, 80), strict=True))
TARGETS = (2.0, *(float(age) for age in range(5, 90, 5)))
SHEET_AGES = (3, 10, 20, 35, 50, 65, 80)


def estimate(value: float, spread: float, count: int = 1861) -> Estimate:
    """A value with an interval around it."""
    low, high = round(value - spread, 5), round(value + 1.1 * spread, 5)
    return Estimate(round(value, 5), low, high, count)


def full_report() -> Report:
    """Two models and a folder of pictures, with all evaluators."""
    folder = make_method("HRFAE", None, 0.22, 0.0448)
    info = MethodInfo("HRFAE", "pictures", "hrfae")
    return Report(
        faceage="0.2.0",
        command="faceage evaluate --data faces --weights compact-128 --images HRFAE=results/hrfae",
        data="utkface-aaf",
        split="test",
        faces=1861,
        groups=GROUPS,
        genders={"F": 959, "M": 902},
        limit=300,
        seed=0,
        targets=TARGETS,
        ranges={span.name: span.target for span in RANGES},
        evaluators={
            "age": "age-v1, sha256 " + "4f9f0075" * 8,
            "identity": "mobilefacenet, sha256 " + "a1b2c3d4" * 8,
            "perceptual": "LPIPS 0.1 (AlexNet), sha256 " + "0badcafe" * 8,
        },
        real_groups=_real_groups(),
        real_ranges=tuple(
            RangeResult(span.name, estimate(0.81 - i / 13, 0.04, 257 + i))
            for i, span in enumerate(RANGES)
        ),
        methods=(
            make_method("compact-128", 0.547, 0.30, 0.0135),
            make_method("ragan-compact", None, 0.42, 0.0312),
            dataclasses.replace(folder, info=info),
        ),
        remarks=(
            "412 of 1861 faces are labelled with a group only.",
            "In 3 results of HRFAE no face was found: they are not measured.",
        ),
    )


def sparse_report() -> Report:
    """One model that predicts ages, without any evaluator and without genders."""
    method = make_method("first", 0.5, 0.3, 0.02)
    scores = Scores(
        accuracy=method.scores.accuracy,
        reconstruction_l1=estimate(0.0135, 0.001, 30),
        cycle_l1=estimate(0.0212, 0.001, 30),
    )
    sharpness = TargetResult(70.0, sharpness_after=estimate(141, 8, 30))
    return Report(
        faceage="0.2.0",
        command=None,
        data="few",
        split="val",
        faces=30,
        groups=dict.fromkeys(GROUP_NAMES, 3),
        genders={},
        limit=300,
        seed=1,
        targets=(70.0,),
        ranges={},
        evaluators={},
        real_groups=(),
        real_ranges=(),
        methods=(
            dataclasses.replace(
                method,
                scores=scores,
                genders={},
                groups=tuple(AgeResult(row.name, row.accuracy) for row in method.groups[1:]),
                intervals=(),
                robustness=(),
                ranges=tuple(RangeResult(span.name) for span in RANGES),
                targets=(sharpness,),
                sheets={},
            ),
        ),
        remarks=("Without --age-evaluator, predicted ages are not measured.",),
    )


def sheets(report: Report) -> dict[str, bytes]:
    """Contact sheets with drawn faces in the place of photographs."""
    files = [file for method in report.methods for file in method.sheets.values()]
    return {file: _sheet(seed) for seed, file in enumerate(files)}


def estimates(value: Any) -> Iterator[tuple[Any, Estimate]]:
    """All estimates in a result, each with the dataclass field that holds it."""
    if dataclasses.is_dataclass(value):
        for each in dataclasses.fields(value):
            part = getattr(value, each.name)
            if isinstance(part, Estimate):
                yield each, part
            else:
                yield from estimates(part)
    elif isinstance(value, dict | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from estimates(part)


def make_method(name: str, accuracy: float | None, lag: float, l1: float) -> MethodResult:
    """A model of this accuracy, whose faces stay `lag` of the way behind the target age."""

    def predicted(age: float) -> float:
        return 34 + (1 - lag) * (age - 34) - 2 * math.sin(age / 9)

    def score(shift: float, count: int) -> Scores:
        return Scores(
            accuracy=accuracy and estimate(accuracy + shift / 40, 0.021, count),
            within_one_group=accuracy and estimate(accuracy + 0.4003 + shift / 50, 0.009, count),
            mae=accuracy and estimate(5.385 + shift, 0.26, count),
            oldest_bias=accuracy and estimate(-7.35 + shift, 1.2, 80),
            reconstruction_l1=estimate(l1 * (1 + shift / 9), l1 / 20, 300),
            reconstruction_lpips=estimate(3 * l1, l1 / 8, 300),
            cycle_l1=estimate(1.9 * l1, l1 / 12, 300),
            cycle_lpips=estimate(5.1 * l1, l1 / 6, 300),
            in_range=estimate(0.55 - lag / 3 + shift / 30, 0.03, 300),
            control_mae=estimate(11 * lag + 5.03 + shift, 0.4, 300),
            rising=estimate(0.97 - lag / 2, 0.02, 300),
            rank_correlation=estimate(0.99 - lag / 3, 0.02, 300),
            top1=estimate(0.943 - lag / 70, 0.01, 280),
        )

    ranges = [
        RangeResult(
            span.name,
            in_range=estimate(0.7 - lag - i / 31, 0.05, 300),
            predicted_age=estimate(predicted(span.target), 1.1, 300),
            kernel_distance=estimate(0.02 + lag / 9 - i / 300, 0.006, 300),
            crop_kernel_distance=estimate(0.03 + lag / 7 - i / 250, 0.006, 300),
            frechet_distance=Estimate(11 + 40 * lag + i, count=300),
        )
        for i, span in enumerate(RANGES)
    ]
    targets = [
        TargetResult(
            age,
            predicted_age=estimate(predicted(age), 1.3, 300),
            mae=estimate(abs(predicted(age) - age) + 2.13, 0.7, 300),
            real_age=estimate(age + 1.07, 0.9, 90),
            bias=estimate(predicted(age) - age - 1.07, 1.2, 90),
            top1=estimate(0.99 - abs(age - 34) / 310 - lag / 70, 0.01, 280),
            similarity=estimate(0.9 - abs(age - 34) / 120 - lag / 10, 0.02, 280),
            sharpness_before=estimate(212, 9, 300),
            sharpness_after=estimate(212 * (0.98 - lag * age / 200), 9, 300),
            sharpness_ratio=estimate(0.98 - lag * age / 200, 0.02, 300),
            skin_darkest=estimate(lag * (40 - age), 2.1, 60),
            skin_lightest=estimate(lag * (20 - age), 2.1, 60),
        )
        for age in TARGETS
    ]
    return MethodResult(
        info=MethodInfo(
            name,
            "weights",
            f"{name}.safetensors",
            (name.encode().hex() * 8)[:64],
            128,
            {"licence": "Non-commercial research only.", "images_seen": "312096"},
        ),
        scores=score(0, 1861),
        genders={"F": score(-0.37, 959), "M": score(0.41, 902)},
        **(_estimation() if accuracy else {}),
        ranges=(*ranges, RangeResult("mean", kernel_distance=Estimate(0.0193 + lag / 9))),
        targets=tuple(targets),
        sheets={kind: f"sheet-{name}-{kind}.jpg" for kind in ("random", "best", "worst")},
    )


def _estimation() -> dict[str, Any]:
    confusion = []
    for true, count in enumerate(GROUPS.values()):
        weights = [math.exp(-0.9 * abs(true - group) ** 1.2) for group in range(10)]
        row = [int(count * weight / sum(weights)) for weight in weights]
        row[true] += count - sum(row)
        confusion.append(tuple(row))
    rows = enumerate(GROUPS.items())
    return {
        "confusion": tuple(confusion),
        "groups": tuple(
            AgeResult(
                name,
                accuracy=estimate(confusion[g][g] / count, 0.3 / count**0.5, count),
                bias=estimate(3.3 - 1.21 * g, 0.4, count),
            )
            for g, (name, count) in rows
        ),
        "intervals": tuple(
            AgeResult(
                f"{100 * part:g} %",
                coverage=estimate(part + 0.064, 0.015, 1449),
                width=estimate(21.7 * part**1.4, 0.31, 1449),
            )
            for part in (0.5, 0.8, 0.9)
        ),
        "robustness": tuple(
            AgeResult(
                name,
                accuracy=estimate(0.54 - i / 17, 0.03, 300),
                within_one_group=estimate(0.95 - i / 19, 0.02, 300),
                mae=estimate(5.41 + 1.13 * i, 0.4, 300),
                coverage=estimate(0.86 - i / 23, 0.02, 300),
            )
            for i, name in enumerate(("none", "grey"))
        ),
    }


def _real_groups() -> tuple[AgeResult, ...]:
    labels = [1.4, 4.6, 8.2, 12.1, 17.2, 24.9, 34.1, 44.0, 57.9, 77.8, 36.3]
    predicted = [2.1, 6.9, 11.8, 17.4, 21.6, 26.2, 32.0, 38.3, 51.6, 68.9, 34.5]
    return tuple(
        AgeResult(
            name,
            label=estimate(label, 0.3, count),
            predicted=estimate(age, 1.2, count),
            mae=estimate(4.03 + label / 9, 0.8, count),
            bias=estimate(age - label, 1.1, count),
        )
        for (name, count), label, age in zip(
            (GROUPS | {"all": 1861}).items(), labels, predicted, strict=True
        )
    )


def _sheet(seed: int) -> bytes:
    people = 6
    rows = [
        [_face(seed + person, age) for age in (20 + 9 * person, *SHEET_AGES)]
        for person in range(people)
    ]
    sheet = contact_sheet(rows, ["unchanged", *(f"{age} years" for age in SHEET_AGES)])
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=85)
    return file.getvalue()


def _face(person: int, age: float) -> Image.Image:
    """A head that greys and whose eyes become smaller with age."""
    skins = ((224, 186, 160), (141, 97, 72), (198, 154, 120), (94, 62, 45), (238, 205, 180))
    skin, grey = skins[person % 5], int(60 + 1.8 * age)
    face = Image.new("RGB", (192, 192), ((70 + 37 * person) % 200, 110, 130))
    draw = ImageDraw.Draw(face)
    draw.ellipse((30, 8, 162, 150), (grey, grey - 20, grey - 35))
    draw.ellipse((42, 28, 150, 184), skin)
    for x in (74, 118):
        size = 13 - age / 14
        draw.ellipse((x - size, 90 - size, x + size, 90 + size), (40, 35, 35))
    draw.arc((72, 118, 120, 152), 20, 160, (120, 50, 50), 4)
    for line in range(int(age / 16)):
        draw.arc((60, 40 + 7 * line, 132, 66 + 7 * line), 200, 340, (110, 80, 65), 1)
    return face
