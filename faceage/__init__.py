"""Predict the age of faces in photos, and show the same faces at other ages.

    import faceage
    ager = faceage.load()
    ager.predict("me.jpg")              # [Prediction(age=34.1, group="30-39", ...)]
    ager.age("me.jpg", to=[5, 70])      # [Aged(age=5.0, photo=<PIL.Image>, ...), ...]

Importing the package is instant: torch is imported when `load` or a class is first used.
"""

from typing import TYPE_CHECKING

from faceage.errors import (
    AgeError,
    ConfigError,
    DataError,
    FaceAgeError,
    NoFaceError,
    OutputError,
    PhotoError,
    WeightsError,
)

if TYPE_CHECKING:
    from faceage.api import Aged, FaceAger, Prediction, load

__version__ = "0.1.0"

__all__ = [
    "AgeError",
    "Aged",
    "ConfigError",
    "DataError",
    "FaceAgeError",
    "FaceAger",
    "NoFaceError",
    "OutputError",
    "PhotoError",
    "Prediction",
    "WeightsError",
    "__version__",
    "load",
]

_FROM_API = ("Aged", "FaceAger", "Prediction", "load")


def __getattr__(name: str) -> object:
    if name in _FROM_API:
        from faceage import api

        return getattr(api, name)
    raise AttributeError(f"module 'faceage' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_FROM_API})
