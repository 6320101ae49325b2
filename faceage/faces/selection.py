"""Which faces of a photo a command is applied to: "all", "largest", or a number."""

from typing import TYPE_CHECKING

from faceage.errors import ConfigError, NoFaceError

if TYPE_CHECKING:
    from faceage.faces.alignment import Face
    from faceage.faces.detection import Detector
    from faceage.imaging.photos import Photo

NumberedFace = tuple[int, "Face"]


def parse_faces(faces: str | int) -> str | int:
    """The value of `--face`: "all", "largest", or a number from 1 on.

    Raises:
        ConfigError: anything else.
    """
    if faces in ("all", "largest"):
        return faces
    text = str(faces)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigError(f"Cannot read the face {text!r}.", "Use all, largest, or 1, 2, 3...")


def choose_faces(
    photo: "Photo", detector: "Detector", faces: str | int = "all"
) -> list[NumberedFace]:
    """The chosen faces of a photo with their numbers, 1 for the largest.

    Raises:
        NoFaceError: there is no face, or not so many.
        ConfigError: `faces` is neither "all" nor "largest" nor a number from 1 on.
    """
    which = parse_faces(faces)
    found = detector.search(photo.pixels)
    if not found.faces:
        raise found.error(photo.name)
    numbered = list(enumerate(found.faces, 1))
    if which == "all":
        return numbered
    number = 1 if which == "largest" else int(which)
    if number > len(numbered):
        count = "1 face" if len(numbered) == 1 else f"{len(numbered)} faces"
        raise NoFaceError(
            f"There is no face {number} in {photo.name}, only {count}.", "1 is the largest."
        )
    return [numbered[number - 1]]
