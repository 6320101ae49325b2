"""The main figures of a model: their names, their places in the report, and what the paper printed.

The paper's figures are those of Kim & Park 2023, "Facial Age Classification and Synthesis using
Feature Decomposition". They were measured on FFHQ-Aging; here they are only printed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from faceage.evaluation.reports.formats import Cell, distance, percent, ratio, words, years
from faceage.evaluation.reports.tables import Heading, Model, at, item

PAPER = Heading("the paper, on FFHQ-Aging*", measured=False)
PAPER_NOTE = "* Measured by the paper's authors on FFHQ-Aging, not on this data."
PAPER_OTHERS = "The paper's rows of HRFAE and RAGAN are not at hand, so none are shown."

_PAPER_BANDS = {"0-14": "57.3", "15-19": "57.5", "20-39": "63.1", "40-49": "64.2", "50+": "68.3"}


@dataclass(frozen=True)
class Measure:
    """One figure of a model.

    Attributes:
        text: its name, with its unit.
        keys: where it stands in the model's part of the report.
        show: how it is written.
        printed: what the paper says of it; empty if it says nothing.
    """

    text: str
    keys: tuple[str, ...]
    show: Callable[[Any], Cell]
    printed: str = ""

    def of(self, model: Model) -> Cell:
        """The figure of a model."""
        return self.show(at(model, *self.keys))

    @property
    def paper(self) -> Cell:
        """The paper's figure."""
        return words(self.printed)


class InBand(Measure):
    """The share of the faces sent to a band that are judged to be in it."""

    def __init__(self, band: str) -> None:
        super().__init__(band, ("bands",), percent, _PAPER_BANDS.get(band, ""))

    def of(self, model: Model) -> Cell:
        """The share of a model."""
        return self.show(item(at(model, *self.keys), "band", self.text).get("judged_in_band"))


TOLD = (
    Measure("age group right, %", ("classification", "accuracy"), percent, "about 60"),
    Measure(
        "right within one group, %",
        ("classification", "within_one_group"),
        percent,
        "more than 95",
    ),
    Measure("age off by, years", ("classification", "mae"), years),
)
OWN_AGE = (
    Measure("L1", ("reconstruction", "l1"), distance, "0.028"),
    Measure("LPIPS", ("reconstruction", "lpips"), distance, "0.072"),
)
CYCLE = (
    Measure("L1", ("cycle", "l1"), distance, "0.040"),
    Measure("LPIPS", ("cycle", "lpips"), distance, "0.155"),
)
REACHED = (
    Measure("judged age off the target, years", ("control", "error"), years),
    Measure("judged age rises with the target, %", ("control", "monotone"), percent),
    Measure("rank correlation with the target", ("control", "rank_correlation"), ratio),
    Measure("kernel distance, mean of bands", ("kernel_mean",), distance),
    Measure("own face found first, %", ("identity", "top1"), percent),
)
BY_GENDER = (  # with the keys of one gender's figures
    Measure("age group right, %", ("accuracy",), percent),
    Measure("age off by, years", ("mae",), years),
    Measure("own age, L1", ("reconstruction_l1",), distance),
    Measure("judged age off the target, years", ("control_error",), years),
    Measure("judged in the band aimed at, %", ("judged_in_band",), percent),
    Measure("own face found first, %", ("top1",), percent),
)
