"""The manifest: the table of a balanced dataset, which `faceage train` reads as its labels.

It has the columns of a dataset (see `faceage.data.layouts`), and those that say where a synthetic
picture comes from. `age` is the label for training: the judged age of a synthetic picture.
"""

import csv
import io
from collections.abc import Iterable

from faceage.ages import GROUP_NAMES
from faceage.balance.folder import REAL, Row
from faceage.balance.plan import name_of, person_of, to_label
from faceage.data.layouts import UNIT, WHOLE, Sample

MANIFEST = "manifest.csv"
COLUMNS = (
    *("file", "zip", "set", "synthetic", "kept", "why", "person", "age", "age_group", "label"),
    *("gender", "source", "source_file", "source_age", "target_age", "judged_age", "similarity"),
    *("weights_sha256", "seed", "valid", "landmarks", "sharp", "weight"),
)


def real_row(sample: Sample, split: str) -> Row:
    """The row of a real picture.

    Args:
        split: "train", "val" or "test".
    """
    place = (
        {"file": sample.file, "zip": f"{REAL}/{sample.zip}"}
        if sample.zip
        else {"file": f"{REAL}/{sample.file}"}
    )
    return (
        _shared(sample)
        | place
        | {
            "set": split,
            "synthetic": 0,
            "kept": 1,
            "age": "" if sample.age is None else f"{sample.age:g}",
            "age_group": GROUP_NAMES[sample.group],
            "label": "estimated" if sample.estimated else "dataset",
            "sharp": "" if sample.sharp is None else f"{sample.sharp:g}",
        }
    )


def synthetic_row(sample: Sample, result: Row, file: str, run: Row) -> Row:
    """The row of a result.

    Args:
        sample: its source.
        result: its entry in the journal.
        file: its place in the folder; if it was dropped, there is no such file.
        run: the columns that are the same for all.
    """
    judged = result["judged_age"]
    group = GROUP_NAMES[sample.group]
    return (
        _shared(sample)
        | run
        | {
            "file": file,
            "set": "train",
            "synthetic": 1,
            "kept": int(result["kept"]),
            "why": result["why"],
            "age": "" if judged is None else to_label(judged),
            "label": "estimated",
            "source_file": name_of(sample),
            "source_age": group if sample.age is None else f"{sample.age:g}",
            "target_age": result["target_age"],
            "judged_age": "" if judged is None else judged,
            "similarity": "" if result["similarity"] is None else result["similarity"],
        }
    )


def to_csv(rows: Iterable[Row]) -> str:
    """The rows as csv."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _shared(sample: Sample) -> Row:
    """The columns in which a result equals its source."""
    valid = "" if sample.valid == WHOLE else " ".join(f"{UNIT * v:g}" for v in sample.valid)
    return {
        "person": person_of(sample),
        "gender": sample.gender,
        "source": sample.source,
        "valid": valid,
        "landmarks": " ".join(f"{value:g}" for value in sample.landmarks),
        "weight": f"{sample.weight:g}",
    }
