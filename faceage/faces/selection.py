"""Which faces of a photo a command is applied to: all, the largest, or some by their numbers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from faceage.errors import ConfigError, NoFaceError

if TYPE_CHECKING:
    from faceage.faces.alignment import Face
    from faceage.faces.detection import Detector
    from faceage.imaging.photos import Photo

NumberedFace = tuple[int, "Face"]
FaceChoice = Literal["all"] | tuple[int, ...]  # numbers ascend; 1 is the largest face


def parse_faces(faces: str | int | Iterable[int]) -> FaceChoice:
    """The value of `--face`: "all", "largest", or numbers from 1 on, such as "1,3".

    Raises:
        ConfigError: anything else.
    """
    if faces == "all":
        return "all"
    if faces == "largest":
        return (1,)
    texts = faces.split(",") if isinstance(faces, str) else _as_texts(faces)
    for text in texts or [""]:
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            raise ConfigError(f"Cannot read the face {text!r}.", "Use all, largest, 1 or 1,3.")
    return tuple(sorted({int(text) for text in texts}))


def choose_faces(
    photo: "Photo", detector: "Detector", faces: str | int | Iterable[int] = "all"
) -> list[NumberedFace]:
    """The chosen faces of a photo with their numbers, largest first; 1 is the largest.

    Raises:
        NoFaceError: there is no face, or not so many.
        ConfigError: `faces` is none of what `parse_faces` takes.
    """
    choice = parse_faces(faces)
    found = detector.search(photo.pixels)
    if not found.faces:
        raise found.error(photo.name)
    numbered = list(enumerate(found.faces, 1))
    if choice == "all":
        return numbered
    if choice[-1] > len(numbered):
        count = "1 face" if len(numbered) == 1 else f"{len(numbered)} faces"
        raise NoFaceError(
            f"There is no face {choice[-1]} in {photo.name}, only {count}.", "1 is the largest."
        )
    return [numbered[number - 1] for number in choice]


def _as_texts(faces: int | Iterable[int]) -> list[str]:
    return [str(face) for face in ([faces] if isinstance(faces, int) else faces)]
