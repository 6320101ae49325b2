"""Tables, JSON and CSV."""

import csv
import io
import json

import pytest

from faceage.ages import GROUP_NAMES
from faceage.cli import output_formats


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


def printed(capsys: pytest.CaptureFixture, name: str, rows: list[dict]) -> tuple[str, str]:
    """What is printed as the rows come, and when all of them are known."""
    writer = output_formats.WRITERS[name]()
    for one in rows:
        writer.write([one])
    before = capsys.readouterr().out
    writer.close()
    return before, capsys.readouterr().out


ROWS = [row(file='a, "ü".jpg'), {"file": "c.jpg", "error": "No face"}]


def test_json_is_one_list_of_the_rows(capsys: pytest.CaptureFixture) -> None:
    before, after = printed(capsys, "json", ROWS)
    assert before == ""
    assert json.loads(after) == ROWS
    assert after.isascii()
    assert printed(capsys, "json", []) == ("", "[]\n")


def test_json_lines_are_printed_as_they_come(capsys: pytest.CaptureFixture) -> None:
    before, after = printed(capsys, "jsonl", ROWS)
    assert [json.loads(line) for line in before.splitlines()] == ROWS
    assert after == ""
    assert before.isascii()


def test_csv_lines_are_printed_as_they_come(capsys: pytest.CaptureFixture) -> None:
    before, after = printed(capsys, "csv", ROWS)
    assert after == ""
    read = list(csv.DictReader(io.StringIO(before)))
    assert tuple(read[0]) == output_formats.CSV_COLUMNS
    assert read[0]["file"] == 'a, "ü".jpg'
    assert (read[0]["low"], read[0]["high"]) == ("28.0", "41.2")
    assert read[0]["group_probability"] == read[0]["p_30-39"] == "0.55"
    assert (read[0]["x0"], read[0]["y1"]) == ("10.0", "90.0")
    assert (read[1]["file"], read[1]["error"], read[1]["age"]) == ("c.jpg", "No face", "")
    assert printed(capsys, "csv", [])[1].splitlines() == [",".join(output_formats.CSV_COLUMNS)]


def test_table_shows_names_that_look_like_markup(capsys: pytest.CaptureFixture) -> None:
    rows = [row(file="[red]x[/red].jpg"), {"file": "bad.jpg", "error": "No face"}]
    _, out = printed(capsys, "table", rows)
    assert "[red]x[/red].jpg" in out
    assert "28 to 41" in out
    assert "55%" in out
    assert "bad.jpg" not in out
    assert printed(capsys, "table", rows[1:]) == ("", "")
