"""Masters for the tests, ended with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from gsmtp_workers import Plan
from running import Running, Start


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """start(plan, ...) -> a `Running` master; all of them are gone when the test ends."""
    directory = tmp_path_factory.mktemp("master")
    running: list[Running] = []

    def start(plan: Plan, *arguments: str, **popen: Any) -> Running:
        running.append(Running(plan, directory, *arguments, **popen))
        return running[-1]

    yield start
    for item in running:
        item.clean_up()
