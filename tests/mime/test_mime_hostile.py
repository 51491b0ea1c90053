"""No hostile mail costs more than half a second of processor time or 50 MB beside itself.

The table is in mime_hostile.py; each mail is asked every question there is, listed for defects, and read strictly.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mime_hostile import HOSTILE

from gsmtp import mime

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux's /proc"
)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    command = [sys.executable, str(HERE / "mime_hostile.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=HERE.parent.parent)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_mail_is_cheap(name: str, measured: dict[str, Any]) -> None:
    cost = measured[name]
    assert cost is not None, "it raised"
    assert cost["ask"] < 0.5 and cost["defects"] < 0.5, cost
    assert cost["megabytes"] < 50, cost
    assert cost["strict"] is None or cost["strict"] in mime.CODES
