"""Soaks that last seconds: what grows by an object, a descriptor or a buffer with each session shows in a few hundred.

The tolerances of the long run need its many sessions; here they are as wide as some hundred sessions make them.
"""

from __future__ import annotations

from collections.abc import Mapping

from gsmtp.soak.harness import Harness
from gsmtp.soak.verdict import Outcome, Verdict, evaluate

WINDOWS, ROUNDS = 9, 5
# Blocks that come and go at rest by themselves, whatever the sessions were.
_RESTLESS = 20


def tolerances(sessions: int) -> dict[str, float]:
    """Per session, with so many sessions in a window."""
    counts = dict.fromkeys(("greenlets", "descriptors", "threads", "watchers"), 0.0)
    each = max(1.0, 40 / sessions)
    return {"blocks": _RESTLESS / sessions, "objects": 0.2 * each, "heap": 1024.0 * each, **counts}


def soaked(
    harness: Harness, kinds: Mapping[str, float], sessions: int, wanted: Mapping[str, float] | None = None
) -> Verdict:
    """The verdict on the first worker after some windows, and some more while it is not clear."""
    for _ in range(2):
        harness.run_window(kinds, sessions=sessions)
    (slot,) = harness.windows
    first = len(harness.windows[slot]) - 1
    for _ in range(ROUNDS):
        for _ in range(WINDOWS):
            harness.run_window(kinds, sessions=sessions)
        verdict = evaluate(harness.windows[slot][first:], tolerances=wanted or tolerances(sessions))
        if verdict.outcome is not Outcome.INCONCLUSIVE:
            break
    return verdict


def in_order(harness: Harness) -> None:
    """Nothing lost, doubled or damaged, no reply that was not expected, no error of ours in the log."""
    assert harness.deliveries.ok, harness.deliveries.named
    assert not harness.problems
    assert not harness.server.log_errors
