"""Starts a master that has a settings file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.master import Master

DIALOGUES = Path(__file__).parent.parent / "dialogues"


def start_master(
    directory: Path,
    handler: str,
    listens: Sequence[Mapping[str, Any]],
    *,
    options: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Master:
    """Write gsmtp.toml in `directory`, and start a master with one worker there.

    `handler` is module:Class; the module is looked for in tests/dialogues. `options` go to the constructor of the
    class. `listens` has the settings of each listener, which is on a free port of 127.0.0.1 unless they say
    otherwise. `settings` are the whole server's.
    """
    rows = _rows({"chdir": str(DIALOGUES), **(settings or {})})
    rows += ["[handler]", *_rows({"class": handler, **(options or {})})]
    for listen in listens:
        rows += ["[[listen]]", *_rows({"bind": "smtp://127.0.0.1:0", "hostname": "mx.example.org", **listen})]
    path = directory / "gsmtp.toml"
    path.write_text("\n".join(rows))
    return Master(directory, ["-c", str(path)])


def _rows(table: Mapping[str, Any]) -> list[str]:
    # The values used here are written alike in JSON and TOML.
    return [f"{key} = {json.dumps(value)}" for key, value in table.items()]
