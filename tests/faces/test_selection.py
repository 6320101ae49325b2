"""Choosing faces."""

from pathlib import Path

import pytest

from faceage.errors import ConfigError, NoFaceError
from faceage.faces.detection import make_detector
from faceage.faces.selection import choose_faces
from faceage.imaging.photos import as_photo


def test_faces_are_chosen(couple: Path) -> None:
    photo, detector = as_photo(couple), make_detector()
    everybody = choose_faces(photo, detector)
    assert [n for n, _ in everybody] == [1, 2]
    for which, numbers in (
        *(("largest", [1]), (1, [1]), ("2", [2]), (2, [2])),
        *(("1,2", [1, 2]), ("2,1,2", [1, 2]), ([2, 1], [1, 2]), ((2,), [2])),
    ):
        assert [n for n, _ in choose_faces(photo, detector, which)] == numbers
    with pytest.raises(NoFaceError, match=r"no face 3 in .*couple\.png, only 2 faces"):
        choose_faces(photo, detector, "1,3")
    for wrong in (
        "0",
        "-1",
        "first",
        "1.5",
        "",
        "1,",
        "1 2",
        "largest,2",
        "all,1",
        [],
        [0],
        [True],
    ):
        with pytest.raises(ConfigError, match="all, largest"):
            choose_faces(photo, detector, wrong)
