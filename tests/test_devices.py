"""Choosing the torch device."""

import pytest

from faceage.devices import pick_device
from faceage.errors import ConfigError


def test_pick_device() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="Unknown device 'abacus'"):
        pick_device("abacus")
    for name in ("cuda:99", "cpu:3", "xpu"):
        with pytest.raises(ConfigError, match="no device"):
            pick_device(name)
