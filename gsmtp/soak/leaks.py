"""Handlers that leak on purpose with each session. The verdict must find each of them."""

from __future__ import annotations

import os
from typing import Any

import gevent
from gevent.event import Event

from gsmtp.protocol.envelope import Session
from gsmtp.soak.handler import Inbox


class ObjectLeak(Inbox):
    """Keeps an object of 64 octets that the garbage collector does not track."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._kept: list[bytes] = []

    def on_disconnect(self, session: Session, reason: str) -> None:
        """Keep one more."""
        self._kept.append(bytes(31))


class DescriptorLeak(Inbox):
    """Opens a descriptor and never closes it."""

    def on_disconnect(self, session: Session, reason: str) -> None:
        """Open one more."""
        os.open(os.devnull, os.O_RDONLY)


class GreenletLeak(Inbox):
    """Starts a greenlet that waits for ever."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._never = Event()

    def on_disconnect(self, session: Session, reason: str) -> None:
        """Start one more."""
        gevent.spawn(self._never.wait)


LEAKS = {"object": "ObjectLeak", "descriptor": "DescriptorLeak", "greenlet": "GreenletLeak"}
