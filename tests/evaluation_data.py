"""Reports of `faceage evaluate` made up for tests: one in full, one of a single model, no judges.

The figures are invented, but such as real models give; each is made from a value that no other
figure has, so that a test finds it again.
"""

import io
import math
from collections.abc import Iterator
from typing import Any

from PIL import Image, ImageDraw

from faceage.ages import GROUP_NAMES
from faceage.imaging.drawing import contact_sheet

GROUPS = [81, 62, 62, 52, 77, 533, 391, 219, 304, 80]
BANDS = {"0-14": 7.0, "15-19": 17.0, "20-39": 30.0, "40-49": 45.0, "50+": 65.0}
STARTS = (0, 15, 20, 40, 50, None)  # of the bands; the last has no end
TARGETS = [2.0, *(float(age) for age in range(5, 90, 5))]
SHEET_AGES = (3, 10, 20, 35, 50, 65, 80)


def figure(value: float, spread: float, count: int = 1861) -> dict[str, Any]:
    """A value with an interval around it."""
    return {
        "value": round(value, 5),
        "low": round(value - spread, 5),
        "high": round(value + 1.1 * spread, 5),
        "count": count,
    }


def full_report() -> dict[str, Any]:
    """Two models and a folder of pictures, with all judges."""
    return {
        "schema": 2,
        "faceage": "0.2.0",
        "command": "faceage evaluate --data faces --weights compact-128 --weights ragan.safetensors"
        " --images HRFAE=results/hrfae --age-judge age-v1.onnx --out report",
        "data": {
            "name": "utkface-aaf",
            "set": "test",
            "faces": 1861,
            "groups": GROUPS,
            "by_gender": {"M": 902, "F": 959},
        },
        "options": {
            "limit": 300,
            "seed": 0,
            "crop": 256,
            "bands": [
                {"name": name, "target": age, "low": low, "high": high}
                for (name, age), low, high in zip(
                    BANDS.items(), STARTS[:-1], STARTS[1:], strict=True
                )
            ],
            "targets": TARGETS,
        },
        "judges": {
            "age": {"name": "age-v1", "sha256": "4f9f0075" * 8},
            "identity": {"name": "mobilefacenet", "sha256": "a1b2c3d4" * 8},
            "perceptual": {"name": "LPIPS 0.1 (AlexNet)", "sha256": "0badcafe" * 8},
        },
        "judged_unchanged": _unchanged(),
        "models": [
            _model("compact-128", 0.547, 0.30, 0.0135),
            _model("ragan-compact", None, 0.42, 0.0312),
            {
                **_model("HRFAE", None, 0.22, 0.0448),
                "kind": "pictures",
                "file": "results/hrfae",
                "sha256": None,
                "size": None,
                "metadata": {},
            },
        ],
        "remarks": [
            "412 of 1861 faces are labelled with a group only: errors in years and intervals are"
            " measured on the others, and their own age is taken for the middle of the group.",
            "ragan-compact is a RAGAN baseline: it tells no ages, and to age a face it is told its"
            " label.",
            "HRFAE: no face was found in 3 of 5400 results.",
        ],
    }


def sparse_report() -> dict[str, Any]:
    """One model that tells ages, without any judge, group labels only, nothing about gender."""
    model = _model("first", 0.5, 0.3, 0.02)
    groups = [3, 0, 2, 3, 4, 5, 6, 4, 3, 0]
    told = {**_classification(0.5, groups), "mae": None, "calibration": []}
    sharp = [{"target": 70.0, "in": None, "out": figure(141, 8, 30), "kept": None}]
    return {
        "schema": 2,
        "faceage": "0.2.0",
        "command": None,
        "data": {"name": "few", "set": "test", "faces": 30, "groups": groups, "by_gender": {}},
        "options": {"limit": 300, "seed": 1, "crop": 256, "bands": [], "targets": [70.0]},
        "judges": {"age": None, "identity": None, "perceptual": None},
        "judged_unchanged": None,
        "models": [
            {
                **model,
                "classification": told,
                "reconstruction": {"l1": figure(0.0135, 0.001, 30), "lpips": None},
                "cycle": {"l1": figure(0.0212, 0.001, 30), "lpips": None},
                "bands": [
                    {
                        "band": "0-14",
                        "target": 7.0,
                        "judged_in_band": None,
                        "judged_age": None,
                        "kernel": None,
                        "frechet": None,
                    }
                ],
                "kernel_mean": None,
                "control": None,
                "identity": None,
                "sharpness": sharp,
                "skin": [],
                "by_gender": {"M": {"accuracy": None, "mae": None}, "F": {}},
                "sheets": {},
            }
        ],
        "remarks": ["No age judge was given (--age-judge), so no judged ages are reported."],
    }


def sheets(report: dict[str, Any]) -> dict[str, bytes]:
    """Contact sheets with drawn faces in the place of photographs."""
    files = [file for model in report["models"] for file in model["sheets"].values()]
    return {file: _sheet(seed) for seed, file in enumerate(files)}


def figures(values: Any) -> Iterator[dict[str, Any]]:
    """All figures below these values."""
    if isinstance(values, dict) and "value" in values:
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from figures(value)


def _model(name: str, accuracy: float | None, lag: float, l1: float) -> dict[str, Any]:
    """A model of this accuracy, whose faces stay `lag` of the way behind the age asked for."""

    def judged(age: float) -> float:
        return 34 + (1 - lag) * (age - 34) - 2 * math.sin(age / 9)

    return {
        "name": name,
        "kind": "weights",
        "file": f"{name}.safetensors",
        "sha256": (name.encode().hex() * 8)[:64],
        "size": 128,
        "metadata": {
            "licence": "Weights for non-commercial research only, as are the faces in training.",
            "images_seen": "312096",
            "training": '{"losses": {"reconstruction": 10.0, "cycle": 2.0}, "batch_size": 16}',
        },
        "classification": accuracy and _classification(accuracy),
        "reconstruction": {"l1": figure(l1, l1 / 20), "lpips": figure(3 * l1, l1 / 8)},
        "cycle": {"l1": figure(1.9 * l1, l1 / 12), "lpips": figure(5.1 * l1, l1 / 6)},
        "bands": [
            {
                "band": band,
                "target": age,
                "judged_in_band": figure(0.7 - lag - i / 31, 0.05, 300),
                "judged_age": figure(judged(age), 1.1, 300),
                "kernel": figure(0.02 + lag / 9 - i / 300, 0.006, 300)
                if i
                else {"value": 0.0007 - l1 / 100, "count": 300},
                "frechet": {"value": 11 + 40 * lag + i, "count": 300},
            }
            for i, (band, age) in enumerate(BANDS.items())
        ],
        "kernel_mean": 0.0193 + lag / 9,
        "control": {
            "targets": [
                {
                    "target": age,
                    "judged_age": figure(judged(age), 1.3, 300),
                    "judged_error": figure(abs(judged(age) - age) + 2.13, 0.7, 300),
                }
                for age in TARGETS
            ],
            "error": figure(11 * lag + 5.03, 0.4, 300),
            "monotone": figure(0.97 - lag / 2, 0.02, 300),
            "rank_correlation": figure(0.99 - lag / 3, 0.02, 300),
        },
        "identity": {
            "targets": [
                {
                    "target": age,
                    "top1": figure(0.99 - abs(age - 34) / 310 - lag / 70, 0.01, 280),
                    "similarity": figure(0.9 - abs(age - 34) / 120 - lag / 10, 0.02, 280),
                }
                for age in (10.0, 30.0, 50.0, 70.0)
            ],
            "top1": figure(0.943 - lag / 70, 0.01, 280),
        },
        "sharpness": [
            {
                "target": age,
                "in": figure(212, 9, 300),
                "out": figure(212 * (0.98 - lag * age / 200), 9, 300),
                "kept": figure(0.98 - lag * age / 200, 0.02, 300),
            }
            for age in TARGETS
        ],
        "skin": [
            {
                "target": age,
                "darkest": figure(lag * (40 - age), 2.1, 60),
                "lightest": figure(lag * (20 - age), 2.1, 60),
            }
            for age in TARGETS
        ],
        "by_gender": {
            gender: {
                "accuracy": accuracy and figure(accuracy + shift / 40, 0.02, count),
                "mae": accuracy and figure(5.4 + shift, 0.3, count),
                "reconstruction_l1": figure(l1 * (1 + shift / 9), l1 / 15, count),
                "control_error": figure(11 * lag + 5 + shift, 0.6, 150),
                "judged_in_band": figure(0.55 - lag / 3 + shift / 30, 0.03, 150),
                "top1": figure(0.94 + shift / 50, 0.02, 140),
            }
            for gender, shift, count in (("M", 0.41, 902), ("F", -0.37, 959))
        },
        "sheets": {kind: f"{name}-{kind}.jpg" for kind in ("random", "best", "worst")},
    }


def _classification(accuracy: float, groups: list[int] = GROUPS) -> dict[str, Any]:
    faces = sum(groups)
    confusion = [[0] * 10 for _ in groups]
    for true, count in enumerate(groups):
        shares = [math.exp(-0.9 * abs(true - told) ** 1.2) for told in range(10)]
        for told in range(10):
            confusion[true][told] = int(count * shares[told] / sum(shares))
        confusion[true][true] += count - sum(confusion[true])
    recall = {
        name: figure(confusion[g][g] / count, 0.3 / count**0.5, count) if count else None
        for g, (name, count) in enumerate(zip(GROUP_NAMES, groups, strict=True))
    }
    return {
        "accuracy": figure(accuracy, 0.021, faces),
        "within_one_group": figure(accuracy + 0.4003, 0.009, faces),
        "mae": figure(5.385, 0.26, 1449),
        "recall": recall,
        "confusion": confusion,
        "calibration": [
            {
                "share": share,
                "inside": figure(share + 0.064, 0.015, 1449),
                "width": figure(21.7 * share**1.4, 0.31, 1449),
            }
            for share in (0.5, 0.8, 0.9)
        ],
    }


def _unchanged() -> dict[str, Any]:
    labels = [1.4, 4.6, 8.2, 12.1, 17.2, 24.9, 34.1, 44.0, 57.9, 77.8]
    judged = [2.1, 6.9, 11.8, 17.4, 21.6, 26.2, 32.0, 38.3, 51.6, 68.9]
    rows = {
        name: {
            "label": figure(label, 0.2, count),
            "judged": figure(seen, 1.9, count),
            "mae": figure(abs(label - seen) + 3.37, 0.6, count),
        }
        for name, label, seen, count in zip(GROUP_NAMES, labels, judged, GROUPS, strict=True)
    }
    return {
        "all": {"label": figure(33.9, 0.9), "judged": figure(32.3, 0.8), "mae": figure(7.11, 0.3)},
        "groups": rows,
        "bands": {
            name: figure(0.81 - i / 13, 0.04, (257, 77, 924, 219, 384)[i])
            for i, name in enumerate(BANDS)
        },
    }


def _sheet(seed: int) -> bytes:
    people = 6
    rows = [
        [_face(seed + person, age) for age in (20 + 9 * person, *SHEET_AGES)]
        for person in range(people)
    ]
    sheet = contact_sheet(
        rows,
        ["unchanged", *(f"{age} years" for age in SHEET_AGES)],
        [f"{20 + 9 * person}" for person in range(people)],
        captions=[[f"judged {age}" for age in (22 + 8 * p, *SHEET_AGES)] for p in range(people)],
    )
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=85)
    return file.getvalue()


def _face(person: int, age: float) -> Image.Image:
    """A head that greys and shrinks its eyes with age."""
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
