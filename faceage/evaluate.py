"""`faceage evaluate`: several models measured on the val set of a dataset, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

from faceage import weights as weight_files
from faceage.ager import pick_device
from faceage.ages import GROUP_NAMES, GROUPS, check_age, format_age
from faceage.batch import check_free, make_folder
from faceage.checkpoints import load_weights
from faceage.data import open_dataset
from faceage.judges import CROP, AgeJudge
from faceage.measure import Figure, Measurer, Subject
from faceage.photos import Photo, save_photo, write_file

TARGETS = (5.0, 15.0, 25.0, 35.0, 45.0, 55.0, 70.0)  # years
SHEET_AGES = (3.0, 10.0, 20.0, 35.0, 50.0, 65.0, 80.0)


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        targets: years that faces are sent to.
        limit: how many faces are sent there, drawn at random; all else is measured on all faces.
        people: rows of the contact sheet, which is written only with `out`; 0 for none.
        seed: of what is drawn: faces, people, bootstrap samples.
        out: the folder for report.json and sheet-NAME.jpg; None writes nothing.
        force: overwrite them.
    """

    targets: Sequence[float] = TARGETS
    limit: int = 300
    people: int = 12
    seed: int = 0
    out: Path | None = None
    force: bool = False


def evaluate(
    data: str | Path,
    weights: Sequence[str | Path],
    age_judge: AgeJudge | None = None,
    options: Options | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure models on the val set of a dataset.

    Args:
        data: dataset name or folder.
        weights: names or files of the models.
        age_judge: judges the ages of aged faces; without it these figures are None.
        options: see `Options`.
        device: "auto", "cpu", "cuda", ...

    Returns:
        The report, in plain values as json takes them: `data`, `options`, `judges`,
        `judged_unchanged` (the judge's own error, on unchanged faces, by group), `models` and
        `remarks`.

    Raises:
        AgeError: a target is out of range.
        ConfigError: there is no such device.
        DataError: there is no such dataset, it has no val set, or a picture is damaged.
        WeightsError: a weights file is missing, damaged, or of another architecture.
        OutputError: a result exists already, or cannot be written.
    """
    options = options or Options()
    targets = [check_age(age) for age in options.targets]
    where = pick_device(device)
    dataset = open_dataset(data, "val")
    subjects = _load(weights, where)
    results: list[Path] = []
    if options.out:
        kinds = [_sheet_name(subject) for subject in subjects] if options.people else []
        results = [options.out / name for name in ("report.json", *kinds)]
        make_folder(options.out)
        check_free(results, options.force)  # before the work, not after it
    with Measurer(dataset, age_judge, where, options.seed) as measurer:
        report: dict[str, Any] = {
            "data": {
                "name": dataset.name,
                "set": "val",
                "faces": len(dataset),
                "groups": np.bincount(measurer.groups, minlength=GROUPS).tolist(),
            },
            "options": {
                "targets": targets,
                "limit": options.limit,
                "seed": options.seed,
                "crop": CROP,
            },
            "judges": {"age": _judge_row(age_judge)},
            "judged_unchanged": measurer.judge_unchanged(age_judge) if age_judge else None,
            "models": [_measure(measurer, s, targets, options.limit) for s in subjects],
            "remarks": _remarks(measurer, subjects),
        }
        if options.out:
            text = json.dumps(report, indent=2, allow_nan=False) + "\n"
            write_file(results[0], text.encode(), force=options.force)
        for subject, path in zip(subjects, results[1:], strict=False):
            sheet = measurer.sheet(subject, options.people, SHEET_AGES)
            mark = {"age": " ".join(map(format_age, SHEET_AGES)), "weights": subject.sha256[:16]}
            save_photo(Photo(sheet), sheet, path, force=options.force, synthetic=mark)
    return report


def tables(report: dict[str, Any]) -> list[Table]:
    """The report as rich tables: ages told and own ages kept; faces aged; the judge itself."""
    data = report["data"]
    first = _table(
        f"{data['faces']} faces of {data['name']} ({data['set']})",
        *("model", "accuracy", "within one group", "MAE, years", "in 80 % interval"),
        "reconstruction L1",
    )
    aged = _table(
        "faces sent to other ages",
        *("model", "target", "faces", "judged age", "off by, years", "sharpness in", "out", "kept"),
    )
    for model in report["models"]:
        told = model["classification"] or {}
        first.add_row(
            model["name"],
            *(_percent(told.get(key)) for key in ("accuracy", "within_one_group")),
            _years(told.get("mae")),
            _percent(told.get("coverage_80")),
            _number(model["reconstruction"]["l1"], 4),
        )
        for row in model["ageing"]:
            aged.add_row(
                model["name"],
                f"{row['target']:g}",
                str(row["sharpness_out"]["count"]),
                _years(row["judged_age"]),
                _years(row["judged_error"]),
                *(_value(row[key], "{:.0f}") for key in ("sharpness_in", "sharpness_out")),
                _value(row["sharpness_kept"], "{:.2f}"),
            )
    recall = _table("recall by group", "model", *GROUP_NAMES)
    for model in report["models"]:
        if told := model["classification"]:
            recall.add_row(model["name"], *(_value(f, "{:.0%}") for f in told["recall"].values()))
    found = [first, *([recall] if recall.row_count else []), aged]
    if own := report["judged_unchanged"]:
        judge = report["judges"]["age"]
        table = _table(
            f"{judge['name']} on the unchanged faces",
            *("group", "faces", "mean label", "mean judged", "off by, years"),
        )
        for name, row in own["groups"].items():
            if row["label"]:
                count = str(row["label"]["count"])
                table.add_row(name, count, *(_years(row[k]) for k in ("label", "judged", "mae")))
        found.append(table)
    return found


def _load(weights: Sequence[str | Path], device: torch.device) -> list[Subject]:
    """The models, under names that tell them apart."""
    subjects: list[Subject] = []
    for name in weights:
        path = weight_files.find(name)
        model, metadata = load_weights(path, device)
        taken = {subject.name for subject in subjects}
        free = (f"{path.stem}-{n}" if n > 1 else path.stem for n in range(1, len(weights) + 1))
        unique = next(text for text in free if text not in taken)
        subjects.append(Subject(unique, path, weight_files.file_sha256(path), model, metadata))
    return subjects


def _measure(
    measurer: Measurer, subject: Subject, targets: Sequence[float], limit: int
) -> dict[str, Any]:
    config = subject.model.config
    # What a file says about its own figures has no place beside measured ones.
    told = {k: v for k, v in subject.metadata.items() if k not in ("config", "figures")}
    return {
        "name": subject.name,
        "file": subject.file.name,
        "sha256": subject.sha256,
        "size": config.size,
        "metadata": told,
        "classification": measurer.classify(subject) if config.decomposition else None,
        "reconstruction": measurer.reconstruct(subject),
        "ageing": measurer.age(subject, targets, limit),
    }


def _remarks(measurer: Measurer, subjects: Sequence[Subject]) -> list[str]:
    """What a reader must know of figures that are missing or not alike."""
    remarks = []
    if measurer.judge is None:
        remarks.append("No age judge was given (--age-judge), so no judged ages are reported.")
    if inexact := int((~measurer.exact).sum()):
        remarks.append(
            f"{inexact} of {len(measurer.dataset)} faces are labelled with a group only: errors in"
            " years and intervals are measured on the others, and their own age is taken for the"
            " middle of the group."
        )
    remarks += [
        f"{s.name} is a RAGAN baseline: it tells no ages, and to age a face it is told its label."
        for s in subjects
        if not s.model.config.decomposition
    ]
    return remarks


def _judge_row(judge: AgeJudge | None) -> dict[str, str] | None:
    return {"name": judge.name, "sha256": judge.sha256} if judge else None


def _sheet_name(subject: Subject) -> str:
    return f"sheet-{subject.name}.jpg"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        left = name in ("model", "group")
        table.add_column(name, justify="left" if left else "right", no_wrap=not left)
    return table


def _value(figure: Figure, form: str) -> str:
    return form.format(figure["value"]) if figure else "-"


def _with_interval(figure: Figure, form: str, unit: str = "") -> str:
    if not figure:
        return "-"
    value, low, high = (form.format(figure[key]) for key in ("value", "low", "high"))
    return f"{value}{unit} ({low}-{high})"


def _percent(figure: Figure) -> str:
    scaled = {key: 100 * value for key, value in figure.items()} if figure else None
    return _with_interval(scaled, "{:.1f}", " %")


def _years(figure: Figure) -> str:
    return _with_interval(figure, "{:.1f}")


def _number(figure: Figure, digits: int) -> str:
    return _with_interval(figure, f"{{:.{digits}f}}")
