"""Handlers for test_chunking_live.py. They write what they saw to files of the directory `path`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gsmtp.handler import Handler, Stream
from gsmtp.protocol.envelope import Envelope, Session
from gsmtp.protocol.parameters import ParameterError
from gsmtp.protocol.server.extensions import Extension
from gsmtp.protocol.server.options import Options


def ticket(value: str | None, options: Options) -> int:
    if value == "boom":
        raise RuntimeError("a secret")
    if value is None or not value.isdigit():
        raise ParameterError(501, "5.5.4", "XTICKET takes a number")
    return int(value)


class Streaming(Handler):
    """Takes content as a stream, and says how each stream ended and what was called meanwhile."""

    extensions: tuple[str | Extension, ...] = ("DSN", Extension("XTICKET", mail={"XTICKET": ticket}))

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def _note(self, **fields: Any) -> None:
        with open(self._path / "notes", "a") as file:
            file.write(json.dumps(fields) + "\n")

    def on_data(self, envelope: Envelope, stream: Stream) -> str:
        content = b""
        try:
            for piece in stream:
                content += piece
        except BaseException as error:
            self._note(ended=f"{type(error).__name__}: {error}", content=content.decode("latin-1"))
            raise
        self._note(ended="whole", content=content.decode("latin-1"), ticket=envelope.parameters.get("XTICKET"))
        return "streamed"

    def on_reset(self, envelope: Envelope) -> None:
        self._note(reset=len(envelope.recipients))

    def on_vrfy(self, session: Session, verb: str, argument: str) -> str:
        self._note(vrfy=argument)
        return "perhaps"


class Clashing(Streaming):
    extensions = (Extension("XSIZE", mail={"SIZE": ticket}),)


class Misspelt(Streaming):
    extensions = ("DNS",)
