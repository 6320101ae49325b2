"""`faceage evaluate`: several systems measured on the val set of a dataset, side by side."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from faceage import distributed
from faceage.ages import check_age, format_age
from faceage.data.datasets import open_dataset
from faceage.devices import pick_device
from faceage.distributed import Processes
from faceage.errors import ConfigError
from faceage.evaluation import reports
from faceage.evaluation.comparison import Compared, Comparison
from faceage.evaluation.folders import PictureFolder
from faceage.evaluation.inputs import LabelledInputs
from faceage.evaluation.measure import Judges, Measurer
from faceage.evaluation.sheets import FAR, cases_sheet, extremes, people_sheet, sheet_ages, spread
from faceage.evaluation.systems import System, open_weights
from faceage.files import check_free, make_folder, write_file
from faceage.imaging.photos import Photo, save_photo

TARGETS = (2.0, *(float(age) for age in range(5, 90, 5)))  # years: the fine sweep
REPORTS = ("report.json", "report.md", "report.html")


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        targets: years of the fine sweep.
        limit: how many faces are sent to other ages, drawn at random; ages are told of all faces.
        people: rows of the contact sheet of people, half the cases on those of successes and of
            the worst; the sheets are written only with `out`; 0 for none.
        seed: of what is drawn: faces, people, random ages, bootstrap samples.
        out: the folder for the reports and contact sheets; None writes nothing.
        force: overwrite them.
        command: what was typed, for the report.
    """

    targets: Sequence[float] = TARGETS
    limit: int = 500
    people: int = 12
    seed: int = 0
    out: Path | None = None
    force: bool = False
    command: str | None = None


def evaluate(
    data: str | Path,
    weights: Sequence[str | Path] = (),
    pictures: Mapping[str, str | Path] | None = None,
    judges: Judges | None = None,
    options: Options | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure systems on the val set of a dataset. Processes that torchrun started share the work.

    Args:
        data: dataset name or folder.
        weights: names or files of models.
        pictures: folders of finished pictures of other systems, by the systems' names; see
            `faceage.evaluate.folders`.
        judges: networks that measure; what a missing one would measure is None.
        options: see `Options`.
        device: "auto", "cpu", "cuda", ...

    Returns:
        The report, in plain values as json takes them; `reports` turns it into tables.

    Raises:
        AgeError: a target is out of range.
        ConfigError: there is no such device, nothing to measure, or two systems of one name.
        DataError: there is no such dataset, it has no val set, a picture is damaged, or a folder
            of pictures holds no results.
        PhotoError: a picture of another system is damaged.
        WeightsError: a weights file is missing, damaged, or of another architecture.
        OutputError: a result exists already, or cannot be written.
    """
    options, judges = options or Options(), judges or Judges()
    targets = sorted({check_age(age) for age in options.targets})
    if not targets:
        raise ConfigError("There is no target age.", "Name one or more.")
    with _processes(device) as processes:
        inputs = LabelledInputs(open_dataset(data, "test"))
        systems = _open(weights, pictures or {}, inputs, processes.device)
        if options.out:
            make_folder(options.out)
            check_free(_planned(systems, judges, options), options.force)  # before the work
        with Measurer(judges, processes) as measurer:
            comparison = Comparison(inputs, measurer, targets, options.limit, options.seed)
            report = comparison.report(systems) | {"command": options.command}
            if options.out and processes.is_first:
                _write(options.out, report, comparison.compared, judges, options)
        processes.wait()
    return report


@contextmanager
def _processes(device: str) -> Iterator[Processes]:
    """This process alone, or those that torchrun started, for as long as they are needed."""
    where = pick_device(device)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield Processes(0, 1, where)
        return
    yield distributed.start(device)
    distributed.stop()  # not after an error: the others would never come


def _open(
    weights: Sequence[str | Path],
    pictures: Mapping[str, str | Path],
    inputs: LabelledInputs,
    device: torch.device,
) -> list[System]:
    systems: list[System] = list(open_weights(weights, device))
    systems += [PictureFolder(name, folder, inputs) for name, folder in pictures.items()]
    names = [system.name for system in systems]
    if not names:
        raise ConfigError("There is nothing to measure.", "Name weights, or folders of pictures.")
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ConfigError(f"Two systems are called {twice}.", "Give the pictures another name.")
    return systems


def _sheet_file(system: System, kind: str) -> str:
    return f"sheet-{system.name}-{kind}.jpg"


def _planned(systems: Sequence[System], judges: Judges, options: Options) -> list[Path]:
    """The files that will be written."""
    if not options.out:
        return []
    kinds = ["random", *(["best", "worst"] if judges.age else [])] if options.people else []
    sheets = [_sheet_file(system, kind) for system in systems for kind in kinds]
    return [options.out / name for name in (*REPORTS, *sheets)]


def _write(
    out: Path,
    report: dict[str, Any],
    compared: Sequence[Compared],
    judges: Judges,
    options: Options,
) -> None:
    """Writes the contact sheets and, with them, the reports."""
    shown: dict[str, bytes] = {}
    for model, part in zip(report["models"], compared, strict=True):
        for kind, (image, ages) in _sheets(part, judges, options):
            pixels = np.asarray(image)
            name = _sheet_file(part.system, kind)
            mark = {"age": " ".join(map(format_age, ages)), **part.system.mark}
            path = save_photo(
                Photo(pixels), pixels, out / name, force=options.force, synthetic=mark
            )
            model["sheets"][kind] = name
            shown[name] = path.read_bytes()
    texts = (
        json.dumps(report, indent=2, allow_nan=False) + "\n",
        reports.markdown(report),
        reports.html(report, shown),
    )
    for name, text in zip(REPORTS, texts, strict=True):
        write_file(out / name, text.encode(), force=options.force)


def _sheets(
    part: Compared, judges: Judges, options: Options
) -> Iterator[tuple[str, tuple[Image.Image, Sequence[float]]]]:
    """A system's contact sheets by their kinds, and the ages they show."""
    if not options.people:
        return
    system, inputs, chosen, sent = part.system, part.inputs, part.chosen, part.sent
    ages = sheet_ages(system, sent.plan)
    if ages:
        people = chosen[spread(sent.ages, options.people, options.seed)]
        yield "random", (people_sheet(system, inputs, people, ages, judges.age), ages)
    titles = {
        "best": f"nearest to the target, of those with {FAR:g} years to go",
        "worst": "farthest from the target",
    }
    for kind, title in titles.items():
        cases = extremes(sent, 2 * options.people, worst=kind == "worst")
        if cases:
            image = cases_sheet(system, inputs, chosen, sent, cases, title)
            yield kind, (image, sorted({target for _, target in cases}))
