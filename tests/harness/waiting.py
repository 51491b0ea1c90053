"""Waits for a condition. The limit only ends a test that would hang, so it is generous; it measures nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

TIMEOUT = 20.0
_T = TypeVar("_T")


def wait_for(condition: Callable[[], _T | None], timeout: float = TIMEOUT, what: str = "a condition") -> _T:
    """Call `condition` until it returns a true value, and return that.

    Raises AssertionError, which names `what`, after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return value
