import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from faceage.ages import GROUP_NAMES
from faceage.imaging import drawing as report

RED, BLUE = (200, 0, 0), (0, 0, 200)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)


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


def test_contact_sheet_places_pictures_in_a_grid() -> None:
    sheet = report.contact_sheet([[picture(RED), picture(BLUE)], [None, picture(RED)]], tile=64)
    gap = 2
    assert sheet.size == (gap + 2 * (64 + gap), gap + 2 * (64 + gap))
    centre = [gap + 32, gap + 66 + 32]
    assert sheet.getpixel((centre[0], centre[0])) == RED
    assert sheet.getpixel((centre[1], centre[0])) == BLUE
    assert sheet.getpixel((centre[1], centre[1])) == RED
    assert sheet.getpixel((centre[0], centre[1])) not in (RED, BLUE, (255, 255, 255))


def test_contact_sheet_keeps_proportions_and_takes_arrays() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    sheet = np.asarray(report.contact_sheet([[wide]], tile=80))
    black = (sheet == 0).all(-1)
    assert (black.any(0).sum(), black.any(1).sum()) == (80, 20)


def test_contact_sheet_makes_room_for_labels() -> None:
    plain = report.contact_sheet([[picture(RED)]], tile=96)
    labelled = report.contact_sheet(
        [[picture(RED)]], ["input"], ["face 1"], captions=[["5"]], title="title", tile=96
    )
    assert labelled.width > plain.width + 20
    assert labelled.height > plain.height + 30
    ink = (np.asarray(labelled).astype(int).sum(-1) < 300).sum()
    assert ink > 50  # letters are there


def test_contact_sheet_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        report.contact_sheet([])


def test_strip_wraps() -> None:
    pictures = [picture(RED)] * 5
    wrapped = report.strip(pictures, list("abcde"), wrap=3, tile=50)
    one_line = report.strip(pictures, list("abcde"), wrap=5, tile=50)
    assert wrapped.width < one_line.width
    assert wrapped.height > 1.8 * one_line.height


def test_draw_faces_changes_only_around_the_box() -> None:
    pixels = np.full((400, 400, 3), 90, np.uint8)
    drawn = report.draw_faces(pixels, [row(box=[150.0, 200.0, 250.0, 300.0])])
    changed = (drawn != pixels).any(-1)
    assert (pixels == 90).all()
    assert changed[200:300, 150].all()
    assert not changed[210:290, 160:240].any()
    assert changed[180:195, 150:200].any()  # the label, above the box
    assert not changed[:, :140].any()


@pytest.mark.parametrize("box", [[-20, -20, 90, 90], [350, 350, 450, 450], [0, 0, 400, 400]])
def test_draw_faces_at_the_border(box: list[float]) -> None:
    pixels = np.full((400, 400, 3), 90, np.uint8)
    assert (report.draw_faces(pixels, [row(box=box)]) != pixels).any()


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
