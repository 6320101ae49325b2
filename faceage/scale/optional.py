"""Importing the libraries of the extras `scale` and `ray`."""

import importlib
from types import ModuleType

from faceage.errors import ConfigError


def import_optional(name: str, extra: str) -> ModuleType:
    """Import a library that an extra of the package installs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        library = name.partition(".")[0]
        raise ConfigError(
            f"This needs {library} ({error}).", f"Run pip install 'faceage[{extra}]'."
        ) from error
