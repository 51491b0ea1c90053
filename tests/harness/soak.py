"""Soaks that last seconds: what grows by an object, a descriptor or a buffer with each session shows in a few hundred.

The tolerances of the long run need its many sessions; here they are as wide as some hundred sessions make them.
"""

from __future__ import annotations

from collections.abc import Mapping

from gsmtp.soak.stage import Stage
from gsmtp.soak.verdict import Outcome, Verdict, judge

WINDOWS, ROUNDS = 9, 5
# Blocks that come and go at rest by themselves, whatever the sessions were.
_RESTLESS = 20


def tolerances(sessions: int) -> dict[str, float]:
    """Per session, with so many sessions in a window."""
    counts = dict.fromkeys(("greenlets", "descriptors", "threads", "watchers"), 0.0)
    each = max(1.0, 40 / sessions)
    return {"blocks": _RESTLESS / sessions, "objects": 0.2 * each, "heap": 1024.0 * each, **counts}


def soaked(
    stage: Stage, kinds: Mapping[str, float], sessions: int, wanted: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict on the first worker after some windows, and some more while it is not clear."""
    for _ in range(2):
        stage.window(kinds, sessions=sessions)
    (slot,) = stage.windows
    first = len(stage.windows[slot]) - 1
    for _ in range(ROUNDS):
        for _ in range(WINDOWS):
            stage.window(kinds, sessions=sessions)
        verdict = judge(stage.windows[slot][first:], tolerances=wanted or tolerances(sessions))
        if verdict.outcome is not Outcome.INCONCLUSIVE:
            break
    return verdict


def in_order(stage: Stage) -> None:
    """Nothing lost, doubled or damaged, no reply that was not expected, no error of ours in the log."""
    assert stage.balance.whole, stage.balance.named
    assert not stage.troubles
    assert not stage.server.faults
