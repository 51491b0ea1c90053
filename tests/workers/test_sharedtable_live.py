"""The shared table under a real master: workers count together, and a killed one lets go."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest
from gsmtp_workers.sharedtable import table_size
from harness.waiting import wait_for
from running import Running, Start, plan

ENTRIES = 64
SLOTS = 2 + 64


@pytest.fixture
def server(start: Start) -> Running:
    shared: dict[str, Any] = {"counters": (), "shared_memory": table_size(SLOTS, ENTRIES), "backoff_first": 0.0}
    return start(plan("limitservice:make", {"entries": ENTRIES}, **shared)).settled()


def test_workers_of_a_master_share_their_limits(server: Running) -> None:
    assert server.plan.size == SLOTS
    clients = [server.connect() for _ in range(8)]
    one = next(client for client in clients if client.slot == 0)
    two = next(client for client in clients if client.slot == 1)
    assert [client.ask("take 192.0.2.1 3") for client in (one, two, one, two, one)] == ["True"] * 3 + ["False"] * 2
    assert [client.ask("hold 192.0.2.1 3") for client in (two, two, two, two, one)] == ["True"] * 3 + ["False"] * 2
    two.ask("release 192.0.2.1 0")
    assert one.ask("hold 192.0.2.1 3") == "True"

    os.kill(two.pid, signal.SIGKILL)
    wait_for(lambda: one.ask("hold 192.0.2.1 3") == "True")
    assert one.ask("hold 192.0.2.1 3") == "True"
    assert one.ask("hold 192.0.2.1 3") == "False"  # its own holds have stayed
    wait_for(lambda: server.log.count(" ready after") == 3)
    time.sleep(0.3)
    assert one.ask("hold 192.0.2.1 3") == "False"
    for client in clients:
        client.close()
