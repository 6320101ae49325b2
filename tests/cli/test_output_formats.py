"""Tables, JSON and CSV."""

import csv
import io
import json

import pytest

from faceage.ages import GROUP_NAMES
from faceage.cli import output_formats as report


def row(**changes: object) -> dict:
    chances = dict.fromkeys(GROUP_NAMES, 0.05) | {"30-39": 0.55}
    return {
        "file": "me.jpg",
        "face": 1,
        "age": 34.1,
        "interval": [28.0, 41.2],
        "group": "30-39",
        "probabilities": chances,
        "box": [10.0, 20.0, 60.0, 90.0],
        "score": 0.93,
    } | changes


def test_json_is_one_list_of_the_rows() -> None:
    rows = [row(), {"file": "ünï.jpg", "error": "No face"}]
    assert json.loads(report.to_json(rows)) == rows
    assert report.to_json(rows).isascii()
    assert json.loads(report.to_json([])) == []


def test_csv_has_a_line_for_every_row() -> None:
    rows = [row(file='a, "b".jpg'), {"file": "c.jpg", "error": "No face"}]
    read = list(csv.DictReader(io.StringIO(report.to_csv(rows))))
    assert tuple(read[0]) == report.CSV_COLUMNS
    assert read[0]["file"] == 'a, "b".jpg'
    assert (read[0]["low"], read[0]["high"]) == ("28.0", "41.2")
    assert read[0]["group_probability"] == read[0]["p_30-39"] == "0.55"
    assert (read[0]["x0"], read[0]["y1"]) == ("10.0", "90.0")
    assert (read[1]["file"], read[1]["error"], read[1]["age"]) == ("c.jpg", "No face", "")


def test_table_shows_names_that_look_like_markup(capsys: pytest.CaptureFixture) -> None:
    rows = [row(file="[red]x[/red].jpg"), {"file": "bad.jpg", "error": "No face"}]
    report.print_table(report.predictions_table(rows))
    out = capsys.readouterr().out
    assert "[red]x[/red].jpg" in out
    assert "28 to 41" in out
    assert "55%" in out
    assert "bad.jpg" not in out
