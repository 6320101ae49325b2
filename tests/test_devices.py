"""Choosing the torch device."""

import threading
import time

import pytest

from faceage.devices import map_ahead, pick_device
from faceage.errors import ConfigError


def test_pick_device() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="Unknown device 'abacus'"):
        pick_device("abacus")
    for name in ("cuda:99", "cpu:3", "xpu"):
        with pytest.raises(ConfigError, match="no device"):
            pick_device(name)


def test_map_ahead_keeps_order_and_errors() -> None:
    def function(x: int) -> int:
        if x == 2:
            raise ValueError("two")
        return 10 * x

    for threads in (0, 1, 3):
        results = list(map_ahead(function, range(5), threads))
        with pytest.raises(ValueError, match="two"):
            results.pop(2)()
        assert [get() for get in results] == [0, 10, 30, 40]


def test_map_ahead_works_in_another_thread_and_not_too_far_ahead() -> None:
    started: list[int] = []

    def function(x: int) -> threading.Thread:
        started.append(x)
        return threading.current_thread()

    results = map_ahead(function, range(10), threads=1)
    assert next(results)() is not threading.current_thread()
    time.sleep(0.05)
    assert len(started) <= 2
    results.close()  # the others are not computed
    assert len(started) <= 2
