"""What a report of `faceage evaluate` says: its tables, in the order in which they are read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from faceage.ages import GROUP_NAMES
from faceage.evaluation.reports import aged, told
from faceage.evaluation.reports.formats import Cell, count_text, plain, years
from faceage.evaluation.reports.measures import (
    BY_GENDER,
    CYCLE,
    OWN_AGE,
    PAPER,
    PAPER_NOTE,
    PAPER_OTHERS,
    REACHED,
    TOLD,
    InBand,
    Measure,
)
from faceage.evaluation.reports.tables import (
    Heading,
    Model,
    Models,
    Row,
    Table,
    abreast,
    at,
    finished,
    numbered_models,
)

_SEXES = {"F": "female", "M": "male"}
_SHEETS = {"random": "drawn at random", "best": "best cases", "worst": "worst cases"}
_JUDGES = {
    "age": "judge of ages",
    "identity": "judge of identity",
    "perceptual": "judge of likeness",
}

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Section:
    """A part of the report under one title.

    Attributes:
        name: tells sections apart; a table of the same name needs no title of its own.
        title: what it is about.
        text: what a reader should know before.
        tables: at least one, but in "remarks" (see `remarks`) and "sheets" (see `pictures`).
    """

    name: str
    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """A contact sheet: its title, its file's name, and which model's it is."""

    title: str
    file: str
    mark: int | None


def sections(report: Report) -> list[Section]:
    """All sections that have something to say, from the main figures to the model files."""
    models = numbered_models(report["models"])
    found = (
        Section("summary", "Main figures", "", _summary(report, models)),
        Section("setup", "What was measured", "", _setup(report)),
        Section("remarks", "Remarks"),
        Section(
            "ages",
            "Telling ages",
            "How old a face is: ten age groups, and years.",
            [*told.confusion(models), *told.recall(models), *told.calibration(models)],
        ),
        Section(
            "face",
            "Keeping the face",
            "What is lost when a face is sent to its own age, or away and back: L1 on [-1, 1]"
            f" and LPIPS of crops of {at(report, 'options', 'crop')} px, padding left out. Less is"
            " better.",
            [
                *aged.kept("table-1", "Table 1: own age as target", OWN_AGE, models),
                *aged.kept("table-2", "Table 2: to a random age and back", CYCLE, models),
            ],
        ),
        Section(
            "aged",
            "Reaching an age",
            "Ages as a network sees them that no training has seen. Its own errors are below.",
            [*aged.bands(report, models), *aged.control(models), *aged.distances(report, models)],
        ),
        Section(
            "same",
            "Identity, detail and skin",
            "",
            [*aged.identity(models), *aged.sharpness(models), *aged.skin(models)],
        ),
        Section("gender", "By gender", "", _by_gender(models)),
        Section("sheets", "Contact sheets"),
        Section("unchanged", "The judge's own error", "", _unchanged(report)),
        Section("files", "Model files", "", _metadata(models)),
    )
    others = {"remarks": remarks(report), "sheets": pictures(report)}
    return [section for section in found if section.tables or others.get(section.name)]


def pictures(report: Report) -> list[Picture]:
    """The contact sheets, those of each model together."""
    return [
        Picture(f"{heading.text}: {_SHEETS.get(kind, plain(kind))}", file, heading.mark)
        for heading, model in numbered_models(report["models"])
        for kind, file in (model.get("sheets") or {}).items()
        if file
    ]


def listed(names: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def faces_text(report: Report) -> str:
    """ "1,861 faces of utkface (val)"."""
    data = report["data"]
    return f"{count_text(data['faces'])} faces of {plain(data['name'])} ({plain(data['set'])})"


def remarks(report: Report) -> list[str]:
    """What must be known of figures that are missing or not alike."""
    return [plain(remark) for remark in report.get("remarks") or ()]


def _summary(report: Report, models: Models) -> list[Table]:
    groups: dict[str, Sequence[Measure]] = {
        "telling ages": TOLD,
        "own age as target (Table 1)": OWN_AGE,
        "to a random age and back (Table 2)": CYCLE,
        "judged in the band aimed at, % (Table 3)": list(map(InBand, aged.band_names(report))),
        "aged faces": REACHED,
    }
    rows = tuple(
        Row(
            Heading(measure.text, group),
            (*(measure.of(model) for _, model in models), measure.paper),
        )
        for group, measures in groups.items()
        for measure in measures
    )
    columns = (*(heading for heading, _ in models), PAPER)
    note = (
        "In brackets: 95 % bootstrap intervals over faces. Less is better where a figure is in"
        " years, L1, LPIPS or a distance; else more."
    )
    title = f"Main figures: {faces_text(report)}"
    foot = f"{PAPER_NOTE} {PAPER_OTHERS}"
    return finished(Table("summary", title, "figure", columns, rows, note, foot))


def _by_gender(models: Models) -> list[Table]:
    def show(gender: str) -> Callable[[Model, Measure], Cell]:
        return lambda model, measure: measure.of(at(model, "by_gender", gender) or {})

    known = {gender for _, model in models for gender in model.get("by_gender") or ()}
    columns, rows = abreast(
        models,
        [(measure.text, measure) for measure in BY_GENDER],
        {_SEXES.get(gender, plain(gender)): show(gender) for gender in sorted(known)},
    )
    note = "As the data's labels tell it."
    return finished(Table("gender", "Figures by gender", "figure", columns, rows, note))


def _unchanged(report: Report) -> list[Table]:
    keys = {"label": "mean label", "judged": "mean judged age", "mae": "off by, years"}
    own = report.get("judged_unchanged") or {}
    lines = {name: at(own, "groups", name) for name in GROUP_NAMES} | {"all": own.get("all")}
    rows = tuple(
        Row(Heading(name), tuple(years(at(line, key)) for key in keys))
        for name, line in lines.items()
    )
    title = "The age judge on unchanged faces"
    note = (
        "What the judge says of aged faces is no better than what it says of faces as they are."
        f" It says {aged.JUDGE_CEILING} at most."
    )
    return finished(
        Table("unchanged", title, "true group", tuple(map(Heading, keys.values())), rows, note)
    )


def _setup(report: Report) -> list[Table]:
    data, options = report["data"], report.get("options") or {}
    groups = zip(GROUP_NAMES, data.get("groups") or (), strict=False)
    genders = ((_SEXES.get(g, g), n) for g, n in (data.get("by_gender") or {}).items())
    facts = {
        "faces": faces_text(report),
        "by group": ", ".join(f"{name}: {count_text(n)}" for name, n in groups),
        "by gender": ", ".join(f"{name}: {count_text(n)}" for name, n in genders),
        "faces sent to a target": f"{options['limit']:,} at most" if options.get("limit") else "",
        "targets, years": ", ".join(f"{age:g}" for age in options.get("targets") or ()),
        "bands": ", ".join(f"{b['name']} (to {b['target']:g})" for b in options.get("bands") or ()),
        "crop, px": options.get("crop", ""),
        "seed": options.get("seed", ""),
        **{what: _judge(at(report, "judges", key)) for key, what in _JUDGES.items()},
        "command": report.get("command") or "",
        "faceage": report.get("faceage") or "",
    }
    return _facts("setup", "Data, judges and settings", facts)


def _judge(judge: Mapping[str, str] | None) -> str:
    return f"{judge['name']}, sha256 {judge['sha256']}" if judge else "none given"


def _metadata(models: Models) -> list[Table]:
    found = []
    for i, (heading, model) in enumerate(models):
        facts = {
            "kind": "finished pictures" if model.get("kind") == "pictures" else "weights",
            "file": model.get("file") or "",
            "sha256": model.get("sha256") or "",
            "size, px": model.get("size") or "",
            **(model.get("metadata") or {}),
        }
        found += _facts(f"model-{i}", heading.text, facts)
    return found


def _facts(name: str, title: str, facts: Mapping[str, Any]) -> list[Table]:
    lines = ((plain(key), plain(value)) for key, value in facts.items())
    rows = tuple(Row(Heading(key), (Cell(value),)) for key, value in lines if value)
    return finished(Table(name, title, "", (Heading(""),), rows, words=True))
