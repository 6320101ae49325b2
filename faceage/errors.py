"""The exceptions. Each message is one line: what happened, the value, and what to do next.

FaceAgeError
    AgeError        an invalid age
    PhotoError      a photo that cannot be opened
        NoFaceError     a photo in which no face was found
    OutputError     a result that cannot be written
    WeightsError    a model file that is missing, damaged or of another architecture
    DataError       a dataset that is missing or malformed
    ConfigError     options that are invalid or contradict each other
"""


class FaceAgeError(Exception):
    """The base class of all exceptions of this package.

    Args:
        message: what happened, with the invalid value.
        hint: what to do next; "" if there is nothing to suggest.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip())


class AgeError(FaceAgeError):
    """An age that is not a number of years from 0 to 100."""


class PhotoError(FaceAgeError):
    """A photo that cannot be opened: missing, not an image, damaged, too small or too large."""


class NoFaceError(PhotoError):
    """A photo in which no face was found."""


class OutputError(FaceAgeError):
    """A result that cannot be written: the file exists, or its folder is not writable."""


class WeightsError(FaceAgeError):
    """A model file that is missing, damaged, of another program or of another architecture."""


class DataError(FaceAgeError):
    """A dataset that is missing or malformed."""


class ConfigError(FaceAgeError):
    """Options that are invalid or contradict each other; the message lists all problems."""
