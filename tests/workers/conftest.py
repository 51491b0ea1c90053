"""Masters for the tests, ended with them."""

import pytest
from running import Running


@pytest.fixture
def start(tmp_path_factory):
    """start(plan, ...) -> a `Running` master; all of them are gone when the test ends."""
    directory = tmp_path_factory.mktemp("master")
    running = []

    def start(plan, *arguments, **popen):
        running.append(Running(plan, directory, *arguments, **popen))
        return running[-1]

    yield start
    for item in running:
        item.clean_up()
