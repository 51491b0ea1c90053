"""The report of a run: what was found, and the outcome.

A message lost, doubled, damaged, or stored although refused is a FAIL; so is a reply that was not the one expected, an
error in the log that the soak has not caused on purpose, memory that grows, and a burst that leaves memory behind. The
report names all of these. INCONCLUSIVE is a run that could not be brought to its end, or whose verdict stays open.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from gsmtp.soak.deliveries import DeliveryCounts
from gsmtp.soak.plot import Sample
from gsmtp.soak.verdict import TOLERANCES, Outcome, Verdict, Window

# With fewer messages noise, and caches that still fill, may be above a tolerance, so that slopes cannot decide.
MIN_MESSAGES = 25_000
LEFT_BY_BURST = 8 << 20  # octets of USS
SLOPES = {name for name, tolerance in TOLERANCES.items() if tolerance}


@dataclass
class Report:
    """The result of a run.

    `verdicts` and `windows` are by the name of the process ("worker 0", "master"), and so is `burst`, which has USS in
    octets before and after. `warm_at` is the number of messages that ended the warm-up. `problems` has how often each
    one occurred, `log_errors` the errors in the server's log, `ended` why the run could not be brought to its end.
    """

    messages: int = 0
    sessions: int = 0
    seconds: float = 0.0
    warm_at: int | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    burst: dict[str, tuple[float, float]] = field(default_factory=dict)
    deliveries: DeliveryCounts = field(default_factory=DeliveryCounts)
    problems: dict[str, int] = field(default_factory=dict)
    log_errors: list[str] = field(default_factory=list)
    ended: str = ""
    windows: dict[str, list[Window]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    @property
    def burst_left(self) -> float:
        """The most octets of USS by which a worker has grown in the burst."""
        return max((after - before for before, after in self.burst.values()), default=0.0)

    @property
    def outcome(self) -> Outcome:
        """FAIL, INCONCLUSIVE or PASS, by the rules above."""
        faults = not self.deliveries.ok or self.problems or self.log_errors or self.burst_left > LEFT_BY_BURST
        found = [each for verdict in self.verdicts.values() for each in verdict.measures]
        failed = {each.measure for each in found if each.outcome is Outcome.FAIL}
        # A count that must not grow by one needs no long run. Slopes do, until the server's caches are full.
        if faults or failed - (set() if self.messages >= MIN_MESSAGES else SLOPES):
            return Outcome.FAIL
        if self.ended or not found or any(each.outcome is not Outcome.PASS for each in found):
            return Outcome.INCONCLUSIVE
        return Outcome.PASS

    def reasons(self) -> list[str]:
        """Return what is wrong, each in a line."""
        found = [f"{name}: {each.measure} {each.outcome.value}"
                 for name, verdict in self.verdicts.items()
                 for each in verdict.measures if each.outcome is not Outcome.PASS]  # fmt: skip
        found += self.deliveries.named
        found += [f"{text} ({count} times)" for text, count in self.problems.items()]
        found += [f"in the log: {error}" for error in self.log_errors]
        if self.burst_left > LEFT_BY_BURST:
            found.append(f"the burst left {self.burst_left / 2**20:.1f} MiB")
        if self.ended:
            found.append(self.ended)
        if self.messages < MIN_MESSAGES and self.outcome is Outcome.INCONCLUSIVE:
            found.append(f"{self.messages:,} emails are too few: {MIN_MESSAGES:,} tell more")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return all of it in plain values, for --json."""
        return {
            "outcome": self.outcome.value,
            "reasons": self.reasons(),
            "messages": self.messages,
            "sessions": self.sessions,
            "seconds": round(self.seconds, 1),
            "warm_at": self.warm_at,
            "verdicts": {
                name: [{key: _plain_value(value) for key, value in asdict(each).items()} for each in verdict.measures]
                for name, verdict in self.verdicts.items()
            },
            "burst": self.burst,
            "balance": asdict(self.deliveries),
            "windows": {name: [asdict(window) for window in windows] for name, windows in self.windows.items()},
            "samples": [asdict(sample) for sample in self.samples],
        }

    def text(self) -> str:
        """Return the report for people; its last line is the outcome."""
        rate = self.messages / self.seconds if self.seconds else 0.0
        counts = self.deliveries
        lines = [
            f"{self.messages:,} emails in {self.seconds:.0f} s, {rate:.0f} a second, over {self.sessions:,} sessions",
            f"{counts.lost} lost, {counts.doubled} doubled, {counts.damaged} damaged; "
            f"{counts.refused:,} refused or broken off, of which {counts.unasked} were stored; "
            f"{counts.unsure} whose client did not wait",
            "warm from the start" if not self.warm_at else f"measured after {self.warm_at:,} emails of warm-up",
        ]
        for name, verdict in self.verdicts.items():
            lines += ["", f"{name}:", *("  " + line for line in verdict.text().split("\n"))]
        if self.burst:
            lines.append("")
        for name, (before, after) in self.burst.items():
            lines.append(
                f"{name}: {before / 2**20:.1f} MiB before a burst of sessions, {after / 2**20:.1f} MiB after it"
            )
        if reasons := self.reasons():
            lines += ["", *reasons]
        return "\n".join([*lines, "", self.outcome.value])


def _plain_value(value: Any) -> Any:
    if isinstance(value, Outcome):
        return value.value
    return None if isinstance(value, float) and not math.isfinite(value) else value
