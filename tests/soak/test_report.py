"""What counts against a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gsmtp.soak.deliveries import DeliveryCounts
from gsmtp.soak.report import LEFT_BY_BURST, MIN_MESSAGES, Report
from gsmtp.soak.verdict import MeasureVerdict, Outcome, Verdict

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def result(messages: int = MIN_MESSAGES, **measures: Outcome) -> Report:
    """A run that was in order, with these outcomes of measures."""
    found = {"blocks": PASS, "descriptors": PASS, **measures}
    verdicts = tuple(MeasureVerdict(name, 0, 0, 0, 1, outcome) for name, outcome in found.items())
    return Report(messages=messages, verdicts={"worker 0": Verdict(verdicts, PASS)}, burst={"worker 0": (1, 2)})


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (result(), PASS),
        (result(blocks=FAIL), FAIL),
        (result(blocks=INCONCLUSIVE), INCONCLUSIVE),
        (result(MIN_MESSAGES - 1, blocks=FAIL), INCONCLUSIVE),
        (result(MIN_MESSAGES - 1, descriptors=FAIL), FAIL),
        (Report(messages=MIN_MESSAGES), INCONCLUSIVE),
    ],
)
def test_memory_decides(found: Report, outcome: Outcome) -> None:
    assert found.outcome is outcome
    assert bool(found.reasons()) == (outcome is not PASS and bool(found.verdicts))
    assert found.text().split("\n")[-1] == outcome.value == found.as_json()["outcome"]


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda run: setattr(run, "deliveries", DeliveryCounts(lost=1, named=["1.0.7 lost"])), FAIL),
        (lambda run: setattr(run, "problems", {"plain: no reply in time": 2}), FAIL),
        (lambda run: setattr(run, "log_errors", ["Traceback"]), FAIL),
        (lambda run: setattr(run, "burst", {"worker 0": (0, LEFT_BY_BURST + 1)}), FAIL),
        (lambda run: setattr(run, "ended", "interrupted"), INCONCLUSIVE),
    ],
)
def test_and_all_else_that_went_wrong(spoil: Callable[[Report], None], outcome: Outcome) -> None:
    run = result()
    spoil(run)
    assert run.outcome is outcome
    assert len(run.reasons()) == 1
