"""Contact sheets and boxes."""

import numpy as np
import pytest
from PIL import Image

from faceage.imaging import drawing

RED, BLUE = (200, 0, 0), (0, 0, 200)


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)


def test_contact_sheet_places_pictures_in_a_grid() -> None:
    sheet = drawing.contact_sheet([[picture(RED), picture(BLUE)], [None, picture(RED)]], tile=64)
    gap = 2
    assert sheet.size == (gap + 2 * (64 + gap), gap + 2 * (64 + gap))
    centre = [gap + 32, gap + 66 + 32]
    assert sheet.getpixel((centre[0], centre[0])) == RED
    assert sheet.getpixel((centre[1], centre[0])) == BLUE
    assert sheet.getpixel((centre[1], centre[1])) == RED
    assert sheet.getpixel((centre[0], centre[1])) not in (RED, BLUE, (255, 255, 255))


def test_contact_sheet_keeps_proportions_and_takes_arrays() -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    sheet = np.asarray(drawing.contact_sheet([[wide]], tile=80))
    black = (sheet == 0).all(-1)
    assert (black.any(0).sum(), black.any(1).sum()) == (80, 20)


def test_contact_sheet_makes_room_for_labels() -> None:
    plain = drawing.contact_sheet([[picture(RED)]], tile=96)
    labelled = drawing.contact_sheet(
        [[picture(RED)]], ["input"], ["face 1"], captions=[["5"]], title="title", tile=96
    )
    assert labelled.width > plain.width + 20
    assert labelled.height > plain.height + 30
    ink = (np.asarray(labelled).astype(int).sum(-1) < 300).sum()
    assert ink > 50  # letters are there


def test_contact_sheet_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one"):
        drawing.contact_sheet([])


def test_strip_wraps() -> None:
    pictures = [picture(RED)] * 5
    wrapped = drawing.strip(pictures, list("abcde"), wrap=3, tile=50)
    one_line = drawing.strip(pictures, list("abcde"), wrap=5, tile=50)
    assert wrapped.width < one_line.width
    assert wrapped.height > 1.8 * one_line.height


def test_draw_boxes_changes_only_around_the_box() -> None:
    pixels = np.full((400, 400, 3), 90, np.uint8)
    drawn = drawing.draw_boxes(pixels, [(150.0, 200.0, 250.0, 300.0)], ["1: 34 years, 30-39"])
    changed = (drawn != pixels).any(-1)
    assert (pixels == 90).all()
    assert changed[200:300, 150].all()
    assert not changed[210:290, 160:240].any()
    assert changed[180:195, 150:200].any()  # the label, above the box
    assert not changed[:, :140].any()


@pytest.mark.parametrize("box", [(-20, -20, 90, 90), (350, 350, 450, 450), (0, 0, 400, 400)])
def test_draw_boxes_at_the_border(box: tuple[float, float, float, float]) -> None:
    pixels = np.full((400, 400, 3), 90, np.uint8)
    assert (drawing.draw_boxes(pixels, [box], ["1: 34 years"]) != pixels).any()
