"""Which faces of a photo are meant: "all", "largest", or a number."""

from faceage.errors import ConfigError


def parse_faces(faces: str | int) -> str | int:
    """What `--face` says: "all", "largest", or a number from 1 on.

    Raises:
        ConfigError: anything else.
    """
    if faces in ("all", "largest"):
        return faces
    text = str(faces)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise ConfigError(f"Cannot read the face {text!r}.", "Use all, largest, or 1, 2, 3...")
