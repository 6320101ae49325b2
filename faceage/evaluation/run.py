"""`faceage evaluate`: several methods evaluated on one split of a dataset, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from faceage import __version__, distributed
from faceage.ages import GROUP_NAMES, check_age, format_age
from faceage.data.datasets import open_dataset
from faceage.devices import pick_device
from faceage.errors import ConfigError, DataError
from faceage.evaluation.common import Floats, Indices, Inputs, import_extra
from faceage.evaluation.evaluators import Evaluators
from faceage.evaluation.measure import Arrays, Measurer
from faceage.evaluation.methods import TOLERANCE, FolderMethod, Method, WeightsMethod, open_weights
from faceage.evaluation.report import render_html, render_markdown
from faceage.evaluation.results import RANGES, MethodResult, Report
from faceage.evaluation.sheets import draw_sheets
from faceage.evaluation.summary import IDENTITY_TARGETS, AgedResults, Summarizer
from faceage.files import check_free, make_folder, write_file
from faceage.imaging.photos import Photo, save_photo
from faceage.progress import progress_bar

SWEEP = (2.0, *(float(age) for age in range(5, 90, 5)))  # years: the targets of age control
BIAS_TARGETS = (3.0, 24.0, 34.0, 44.0, 54.0, 65.0)  # years, for the bias against real faces
REPORTS = ("report.json", "report.md", "report.html")

_NEEDED = {
    "age": "predicted ages",
    "identity": "identity and gender",
    "perceptual": "LPIPS and distances",
}


@dataclass(frozen=True)
class Options:
    """What to evaluate, on what, and where to."""

    data: str | Path  # dataset name or folder
    weights: Sequence[str | Path] = ()  # names or files of models
    folders: Mapping[str, str | Path] = field(default_factory=dict)  # as `FolderMethod`, by name
    split: str = "test"
    targets: Sequence[float] = SWEEP  # of age control, years
    limit: int = 500  # faces to age, drawn at random; age estimation is on all faces
    people: int = 12  # on each contact sheet; 0 for no sheets
    seed: int = 0  # of faces, people, random ages and bootstrap samples
    out: Path | None = None  # folder for reports and contact sheets; None writes nothing
    force: bool = False  # overwrite them
    command: str | None = None  # for the report
    device: str = "auto"


def evaluate(options: Options, evaluators: Evaluators | None = None) -> Report:
    """Evaluate methods on a split of a dataset. Processes that torchrun started share the work.

    Raises:
        FaceAgeError: AgeError, ConfigError, DataError, PhotoError and WeightsError for faults of
            the options and of the files they name, OutputError for those of `out`.
    """
    evaluators = evaluators or Evaluators()
    options = replace(options, targets=sorted({check_age(age) for age in options.targets}))
    if not options.targets:
        raise ConfigError("There is no target age.", "Name one or more.")
    processes = distributed.start(str(pick_device(options.device)))
    inputs = Inputs(open_dataset(options.data, options.split))
    methods: list[Method] = [*open_weights(options.weights, processes.device)]
    methods += [FolderMethod(name, path, inputs) for name, path in options.folders.items()]
    _check(methods, evaluators, options)
    with progress_bar(shown=processes.is_first) as bar:
        evaluation = Evaluation(Measurer(inputs, evaluators, processes, bar), options)
        report = evaluation.run(methods)
        if options.out and processes.is_first:
            evaluation.write(options.out, report)
    processes.wait()
    distributed.stop()  # not after an error: the others would never come
    return report


def _check(methods: Sequence[Method], evaluators: Evaluators, options: Options) -> None:
    """Raises the errors that would otherwise come after the work."""
    names = [method.info.name for method in methods]
    if not names:
        raise ConfigError("There is nothing to evaluate.", "Name weights, or folders of pictures.")
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"Two methods are named {twice.pop()}.", "Rename the pictures.")
    if options.out:
        for library in ("jinja2", "matplotlib"):
            import_extra(library, "The report")
        make_folder(options.out)
        kinds = ["random", *(["best", "worst"] if evaluators.age else [])] if options.people else []
        planned = [*REPORTS, *(f"sheet-{name}-{kind}.jpg" for name in names for kind in kinds)]
        check_free((options.out / file for file in planned), options.force)


class Evaluation:
    """One evaluation: what is measured of which faces, method by method."""

    def __init__(self, measurer: Measurer, options: Options) -> None:
        self.measurer, self.options = measurer, options
        self.make = Summarizer(measurer.inputs, options.seed)
        self.inputs, self.evaluators = measurer.inputs, measurer.evaluators
        self.sheets: dict[str, tuple[Photo, dict[str, object]]] = {}  # by file, with their marks
        missing = [name for name in _NEEDED if not getattr(self.evaluators, name)]
        self.remarks = [f"Without --{k}-evaluator, {_NEEDED[k]} are not measured." for k in missing]

    def run(self, methods: Sequence[Method]) -> Report:
        """Measures everything."""
        inputs, options, evaluators = self.inputs, self.options, vars(self.evaluators)
        if inexact := int((~inputs.exact).sum()):
            remark = f"{inexact} of {len(inputs)} faces are labelled with a group only"
            self.remarks.append(f"{remark}: its middle is their age; errors are of the others.")
        chosen = self._draw(methods)
        real = self.measurer.unchanged() if any(evaluators.values()) else {}
        results = [self._measure(method, chosen, real) for method in methods]
        ages = real.get("predicted_age")
        groups, ranges = ((), ()) if ages is None else self.make.real(ages)
        return Report(
            faceage=__version__,
            command=options.command,
            data=inputs.dataset.name,
            split=options.split,
            faces=len(inputs),
            groups={name: int((inputs.groups == g).sum()) for g, name in enumerate(GROUP_NAMES)},
            genders={name: int((inputs.genders == name).sum()) for name in ("F", "M")},
            limit=options.limit,
            seed=options.seed,
            targets=tuple(options.targets),
            ranges={span.name: span.target for span in RANGES},
            evaluators={k: f"{e.name}, sha256 {e.sha256}" for k, e in evaluators.items() if e},
            real_groups=groups,
            real_ranges=ranges,
            methods=tuple(results),
            remarks=tuple(self.remarks),
        )

    def _draw(self, methods: Sequence[Method]) -> Indices:
        """The faces that all methods age: `limit`, at random, of those that all folders have."""
        indices = np.arange(len(self.inputs))
        folders = [method for method in methods if isinstance(method, FolderMethod)]
        for folder in folders:
            indices = np.intersect1d(indices, folder.available)
        names = " and ".join(folder.info.name for folder in folders)
        if not len(indices):
            raise DataError(f"{names} have no input in common.", "Evaluate them one by one.")
        if folders:
            remark = f"The aged faces are drawn from the {len(indices)} with results of {names}."
            self.remarks.append(remark)
        random = np.random.default_rng(self.options.seed)
        return np.sort(random.choice(indices, min(self.options.limit, len(indices)), replace=False))

    def _measure(self, method: Method, chosen: Indices, real: Arrays) -> MethodResult:
        evaluators, sweep = self.evaluators, list(self.options.targets)
        wanted = {*sweep, *(IDENTITY_TARGETS if evaluators.identity else ())}
        wanted |= set(BIAS_TARGETS if evaluators.age else ())
        if evaluators.age or evaluators.perceptual or evaluators.inception:
            wanted |= {span.target for span in RANGES}
        targets = sorted(wanted)
        if isinstance(method, FolderMethod):
            targets, sweep = ([*filter(method.covers, ages)] for ages in (targets, sweep))
        # Each face has its own age to go to and return from, whichever other faces are drawn.
        random = np.random.default_rng([self.options.seed, 2])
        ends = self.options.targets[0], self.options.targets[-1]
        others = random.uniform(*ends, len(self.inputs))
        values, fields = dict[str, Floats](), dict[str, Any]()
        if isinstance(method, WeightsMethod) and method.model.config.decomposition:
            years = self.measurer.predict(method, np.arange(len(self.inputs)))["years"]
            degraded = self.measurer.predict(method, chosen, degraded=True)
            values, fields = self.make.estimation(years, degraded, chosen)
        arrays = self.measurer.aged(method, chosen, targets, others)
        aged = AgedResults(arrays, targets, sweep, chosen, real, self.inputs)
        self.remarks += _list_remarks(method, aged)
        fields |= {"info": method.info, "sheets": self._draw_sheets(method, aged)}
        return self.make.aged(aged, values, **fields)

    def _draw_sheets(self, method: Method, aged: AgedResults) -> dict[str, str]:
        """Draws the contact sheets, if they are to be written; returns their files by kind."""
        if not (self.options.out and self.options.people and self.measurer.processes.is_first):
            return {}
        info, people, seed = method.info, self.options.people, self.options.seed
        drawn = draw_sheets(method, aged, self.evaluators.age, people, seed)
        files = {kind: f"sheet-{info.name}-{kind}.jpg" for kind in drawn}
        source = {"weights": info.sha256[:16]} if info.sha256 else {"method": info.name}
        for kind, (image, ages) in drawn.items():
            mark: dict[str, object] = {"age": " ".join(map(format_age, ages)), **source}
            self.sheets[files[kind]] = Photo(np.asarray(image)), mark
        return files

    def write(self, out: Path, report: Report) -> None:
        """Writes the contact sheets and the reports."""
        force, written = self.options.force, {}
        for name, (photo, mark) in self.sheets.items():
            save_photo(photo, photo.pixels, out / name, force=force, synthetic=mark)
            written[name] = (out / name).read_bytes()
        texts = report.to_json(), render_markdown(report), render_html(report, written)
        for name, text in zip(REPORTS, texts, strict=True):
            write_file(out / name, text.encode(errors="replace"), force=force)


def _list_remarks(method: Method, aged: AgedResults) -> list[str]:
    """What a reader must know of results that are missing or not like the others'."""
    name = method.info.name
    if isinstance(method, WeightsMethod):
        baseline = f"{name} is a RAGAN baseline: it is given the source age, and predicts no ages."
        return [] if method.model.config.decomposition else [baseline]
    lost, targets = int(aged.arrays["lost"].sum()), aged.targets
    missing = sum(int((~aged.arrays["exists", target]).sum()) for target in targets)
    left = [age for age in method.ages if all(abs(age - target) > TOLERANCE for target in targets)]
    asked = ", ".join(format_age(age) for age in left if method.covers(age))
    remarks = {
        f"{method.unmatched} results of {name} belong to no input.": method.unmatched,
        f"In {lost} results of {name} no face was found: they are not measured.": lost,
        f"{name} lacks {missing} of its results: the values are of the others.": missing,
        f"Results of {name} at {asked} years are left out: name these ages with --to.": asked,
        f"{name} is a folder of pictures: cycle reconstruction cannot be measured.": True,
    }
    return [text for text, applies in remarks.items() if applies]
