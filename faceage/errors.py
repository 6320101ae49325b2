"""The error tree. Every error says what happened, the value, and what to do next, in one line.

FaceAgeError
    AgeError        an age that cannot be read or is out of range
    PhotoError      a photo that cannot be opened
        NoFaceError     a photo in which no face was found
    OutputError     a result that cannot be written
    WeightsError    a model file that is missing, damaged or of another architecture
    DataError       a dataset that is missing or malformed
    ConfigError     training options that contradict each other
"""


class FaceAgeError(Exception):
    """Base of all errors this package raises on purpose.

    Args:
        message: what happened, with the offending value.
        hint: what to do next; empty when there is nothing to suggest.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class AgeError(FaceAgeError):
    """An age that cannot be read or is out of range."""


class PhotoError(FaceAgeError):
    """A photo that cannot be opened: missing, not an image, damaged, too small or too large."""


class NoFaceError(PhotoError):
    """A photo in which no face was found."""


class OutputError(FaceAgeError):
    """A result that cannot be written: it exists already, or the place is not writable."""


class WeightsError(FaceAgeError):
    """A model file that is missing, damaged, foreign, or of another architecture."""


class DataError(FaceAgeError):
    """A dataset that is missing or malformed."""


class ConfigError(FaceAgeError):
    """Training options that contradict each other; lists all problems at once."""
