"""The report of `faceage evaluate`: what is measured of which faces, system by system."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from faceage import __version__
from faceage.ages import GROUPS, format_age
from faceage.errors import DataError
from faceage.evaluation.ageing import ADULT, Sent, ageing
from faceage.evaluation.evaluators import CROP
from faceage.evaluation.figures import (
    BANDS,
    Figure,
    Figures,
    classification,
    genders,
    judged_unchanged,
)
from faceage.evaluation.folders import HALF_YEAR, PictureFolder
from faceage.evaluation.inputs import Indices, Inputs, LabelledInputs
from faceage.evaluation.measure import Arrays, Judges, Measurer, Plan
from faceage.evaluation.systems import System, Weights

IDENTITY_TARGETS = (10.0, 30.0, 50.0, 70.0)  # years

_GENDER_FIGURES = (
    "accuracy",
    "mae",
    "reconstruction_l1",
    "control_error",
    "judged_in_band",
    "top1",
)
_MISSING = {
    "age": "No age judge was given (--age-judge), so no judged ages are reported.",
    "identity": "No identity judge was given (--identity-judge), so nothing says whether aged"
    " faces are still the same people.",
    "perceptual": "No perceptual judge was given (--perceptual-judge), so neither LPIPS nor"
    " distances to real faces are reported.",
}


@dataclass(frozen=True, eq=False)
class Compared:
    """A measured system: its faces among its inputs, and what came of sending them."""

    system: System
    inputs: Inputs
    chosen: Indices
    sent: Sent


class Comparison:
    """Systems measured side by side.

    Args:
        inputs: the dataset.
        measurer: already shows its progress.
        targets: years of the fine sweep, from young to old.
        limit: how many faces are sent to other ages.
        seed: of what is drawn.
    """

    def __init__(
        self,
        inputs: LabelledInputs,
        measurer: Measurer,
        targets: Sequence[float],
        limit: int,
        seed: int,
    ) -> None:
        self.inputs, self.measurer, self.judges = inputs, measurer, measurer.judges
        self.targets, self.limit, self.seed = list(targets), limit, seed
        self.figures = Figures(seed)
        self.compared: list[Compared] = []
        self._unchanged: Arrays = {}
        self._remarks: list[str] = []

    def report(self, systems: Sequence[System]) -> dict[str, Any]:
        """Measures everything, and says it in plain values as json takes them.

        Raises:
            DataError: a picture of the dataset is damaged, or folders have no input in common.
            PhotoError: a picture of another system is damaged.
        """
        inputs = self.inputs
        drawn = self._draw(systems)
        if self.judges != Judges():
            everyone = np.arange(len(inputs))
            self._unchanged = self.measurer.unchanged(inputs, everyone, "judging unchanged faces")
        judged = self._unchanged.get("judged")
        judges = {name: getattr(self.judges, name) for name in _MISSING}
        models = [self._measure(system, drawn) for system in systems]
        return {
            "schema": 2,
            "faceage": __version__,
            "command": None,
            "data": {
                "name": inputs.dataset.name,
                "set": "test",
                "faces": len(inputs),
                "groups": np.bincount(inputs.groups, minlength=GROUPS).tolist(),
                "by_gender": {g: int(here.sum()) for g, here in genders(inputs.genders).items()},
            },
            "options": {
                "limit": self.limit,
                "seed": self.seed,
                "crop": CROP,
                "bands": [band.row() for band in BANDS],
                "targets": self.targets,
            },
            "judges": {
                name: {"name": judge.name, "sha256": judge.sha256} if judge else None
                for name, judge in judges.items()
            },
            "judged_unchanged": None
            if judged is None
            else judged_unchanged(judged, inputs, self.figures),
            "models": models,
            "remarks": [
                *(_MISSING[name] for name, judge in judges.items() if judge is None),
                *_label_remarks(inputs),
                *self._remarks,
            ],
        }

    def _draw(self, systems: Sequence[System]) -> Indices:
        """The faces that are sent to other ages: the same of all systems that age the dataset's."""
        places = np.arange(len(self.inputs))
        folders = [s for s in systems if s.available is not None and s.inputs is None]
        for folder in folders:
            places = np.intersect1d(places, np.asarray(folder.available))
        names = " and ".join(folder.name for folder in folders)
        if not len(places):
            raise DataError(f"{names} have no input in common.", "Measure them one by one.")
        if folders:
            self._remarks.append(
                f"The faces sent to other ages are drawn from the {len(places)} that there are"
                f" pictures of from {names}."
            )
        return self._some(places)

    def _some(self, places: Indices) -> Indices:
        """`limit` of the places, drawn at random, in order."""
        random = np.random.default_rng(self.seed)
        return np.sort(random.choice(places, min(self.limit, len(places)), replace=False))

    def _measure(self, system: System, drawn: Indices) -> dict[str, Any]:
        """A system's part of the report."""
        inputs: Inputs = system.inputs or self.inputs
        if system.inputs is not None and system.available is not None:
            drawn = self._some(system.available)
        plan = self._plan(system)
        # Every face has its own other age to go to and return from, whoever else is drawn.
        random = np.random.default_rng([self.seed, 2])
        others = random.uniform(self.targets[0], self.targets[-1], len(inputs))
        told: dict[str, Any] | None = None
        by_gender: dict[str, dict[str, Figure]] = {}
        if (years := self.measurer.told(system, self.inputs)) is not None:
            told, by_gender = classification(years, self.inputs, self.figures)
        arrays = self.measurer.aged(system, inputs, drawn, plan, others)
        sent = self._sent(system, inputs, drawn, plan, arrays)
        self.compared.append(Compared(system, inputs, drawn, sent))
        self._remarks += _system_remarks(system, arrays, plan)
        found = ageing(sent, self.figures)
        aged_by_gender = found.pop("by_gender")
        return {
            **system.describe(),
            "classification": told,
            **found,
            "by_gender": {
                gender: dict.fromkeys(_GENDER_FIGURES)
                | by_gender.get(gender, {})
                | aged_by_gender.get(gender, {})
                for gender in ("M", "F")
                if gender in by_gender | aged_by_gender
            },
            "sheets": {},
        }

    def _plan(self, system: System) -> Plan:
        """Where the system sends faces: where there are judges for it, and pictures of it."""
        judges = self.judges
        bands = [band.target for band in BANDS] if judges.age or judges.perceptual else []
        identity = IDENTITY_TARGETS if judges.identity else ()
        if not isinstance(system, PictureFolder):
            return Plan(self.targets, identity, bands)

        parts = (self.targets, identity, bands)
        return Plan(*([age for age in part if system.serves(age)] for part in parts))

    def _sent(
        self, system: System, inputs: Inputs, chosen: Indices, plan: Plan, arrays: Arrays
    ) -> Sent:
        """What was measured, with the faces to compare it with."""
        unchanged, own = {k: v[chosen] for k, v in self._unchanged.items()}, chosen
        gallery = self._unchanged.get("embedding")
        if system.inputs is not None:
            label = f"{system.name}: judging unchanged faces"
            unchanged = self.measurer.unchanged(inputs, chosen, label)
            if gallery is not None:
                own = len(gallery) + np.arange(len(chosen))
                gallery = np.concatenate([gallery, unchanged["embedding"]])
        ages = inputs.ages[chosen]
        # Who has no label is as old as the judge says; without a judge, nobody is left out.
        taken = np.where(np.isfinite(ages), ages, unchanged.get("judged", np.inf))
        return Sent(
            arrays=arrays,
            plan=plan,
            ages=ages,
            genders=inputs.genders[chosen],
            adult=taken >= ADULT,
            own=own,
            gallery=gallery,
            real=self._unchanged.get("looks"),
            real_ages=self.inputs.ages,
        )


def _label_remarks(inputs: LabelledInputs) -> list[str]:
    inexact = int((~inputs.exact).sum())
    if not inexact:
        return []
    return [
        f"{inexact} of {len(inputs)} faces are labelled with a group only: errors in years and"
        " intervals are measured on the others, and their own age is taken for the middle of the"
        " group."
    ]


def _system_remarks(system: System, arrays: Arrays, plan: Plan) -> list[str]:
    """What a reader must know of a system's figures that are missing or not like the others'."""
    name = system.name
    if isinstance(system, Weights) and not system.model.config.decomposition:
        return [
            f"{name} is a RAGAN baseline: it tells no ages, and to age a face it is told its label."
        ]
    if not isinstance(system, PictureFolder):
        return []
    remarks = []
    if system.inputs is not None:
        remarks.append(
            f"{name} has inputs of its own, without labels: what needs one is not measured. Who is"
            f" to be recognised ({ADULT} years and more) is told by the judge of ages, if any."
        )
    if system.left_out:
        remarks.append(f"{system.left_out} results of {name} belong to no input and are left out.")
    if unseen := int((~arrays["shown"]).sum()):
        remarks.append(f"In {unseen} inputs of {name} no face was found: they are not measured.")
    if lost := int(arrays["lost"].sum()):
        remarks.append(f"In {lost} results of {name} no face was found: they are not measured.")
    if missing := int((~arrays["made"]).sum()):
        remarks.append(
            f"{name} lacks {missing} of {arrays['made'].size} results: figures are of the others."
        )
    apart = [a for a in system.ages if all(abs(a - t) > HALF_YEAR for t in plan.targets)]
    if unasked := [age for age in apart if system.serves(age)]:
        listed = ", ".join(map(format_age, unasked))
        remarks.append(f"Results of {name} at {listed} years are left out: ask for them with --to.")
    if len(apart) > len(unasked):
        remarks.append(
            f"Results of {name} at ages that fewer than half of the faces were sent to count only"
            " where this is the face's own age."
        )
    remarks.append(f"{name} is finished pictures: the way back (Table 2) cannot be measured.")
    return remarks
