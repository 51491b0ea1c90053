"""What counts against a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gsmtp.soak.ledger import Balance
from gsmtp.soak.run import ENOUGH, LEFT_BY_BURST, Result
from gsmtp.soak.verdict import Judgement, Outcome, Verdict

PASS, FAIL, INCONCLUSIVE = Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE


def result(messages: int = ENOUGH, **measures: Outcome) -> Result:
    """A run that was in order, with these judgements."""
    found = {"blocks": PASS, "descriptors": PASS, **measures}
    judgements = tuple(Judgement(name, 0, 0, 0, 1, outcome) for name, outcome in found.items())
    return Result(messages=messages, verdicts={"worker 0": Verdict(judgements, PASS)}, burst={"worker 0": (1, 2)})


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (result(), PASS),
        (result(blocks=FAIL), FAIL),
        (result(blocks=INCONCLUSIVE), INCONCLUSIVE),
        (result(ENOUGH - 1, blocks=FAIL), INCONCLUSIVE),
        (result(ENOUGH - 1, descriptors=FAIL), FAIL),
        (Result(messages=ENOUGH), INCONCLUSIVE),
    ],
)
def test_memory_decides(found: Result, outcome: Outcome) -> None:
    assert found.outcome is outcome
    assert bool(found.reasons()) == (outcome is not PASS and bool(found.verdicts))
    assert found.text().split("\n")[-1] == outcome.value == found.as_json()["outcome"]


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda run: setattr(run, "balance", Balance(lost=1, named=["1.0.7 lost"])), FAIL),
        (lambda run: setattr(run, "troubles", {"plain: no reply in time": 2}), FAIL),
        (lambda run: setattr(run, "faults", ["Traceback"]), FAIL),
        (lambda run: setattr(run, "burst", {"worker 0": (0, LEFT_BY_BURST + 1)}), FAIL),
        (lambda run: setattr(run, "ended", "interrupted"), INCONCLUSIVE),
    ],
)
def test_and_all_else_that_went_wrong(spoil: Callable[[Result], None], outcome: Outcome) -> None:
    run = result()
    spoil(run)
    assert run.outcome is outcome
    assert len(run.reasons()) == 1
