"""The procedure: warm up, twenty windows, judge, go on when that does not decide, a burst, an end in order.

What counts against a run: a message lost, doubled, damaged, or stored although refused; a reply that was not the one
expected, an error in the log that was not planted; memory that grows; a burst that leaves memory behind. All of it is
told, and one of it is FAIL. INCONCLUSIVE is a run that could not be brought to its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from gsmtp.soak.ledger import Balance
from gsmtp.soak.plot import Sample
from gsmtp.soak.stage import ServerAtFault, Stage, StageFailed
from gsmtp.soak.verdict import TOLERANCES, Outcome, Verdict, Window, is_warm, judge

MEASURED = 20  # windows after the warm-up
# Windows of the warm-up at most. In mixed traffic blocks come and go by some hundredths a session, so that two quiet
# windows running are chance; a leak never lets them be.
WARMING = 5
MORE, ROUNDS = 10, 3  # windows more when the verdict is not clear, and how often
# Messages: with fewer, noise and caches that still fill may be above a tolerance, and the verdict on slopes stays open.
ENOUGH = 25_000
BURST = 1500
LEFT_BY_BURST = 8 << 20  # octets of USS
SLOPES = {name for name, tolerance in TOLERANCES.items() if tolerance}
# Of the master only what shows from outside. Its sessions are those of all workers.
MASTER = {name: TOLERANCES[name] for name in ("uss", "descriptors", "threads")}


@dataclass(frozen=True)
class Effort:
    """`messages` in all (or `seconds` long, if that is longer), by windows of `messages` / 25; `burst`: sessions."""

    messages: int = 100_000
    seconds: float = 0.0
    burst: int = BURST


@dataclass
class Result:
    """What came of it. `verdicts` by the name of the process; `burst`: USS before and after by worker."""

    messages: int = 0
    sessions: int = 0
    seconds: float = 0.0
    warm_at: int | None = None
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    burst: dict[str, tuple[float, float]] = field(default_factory=dict)
    balance: Balance = field(default_factory=Balance)
    troubles: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    ended: str = ""
    windows: dict[str, list[Window]] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)

    @property
    def burst_left(self) -> float:
        """Octets that the worst worker kept after the burst."""
        return max((after - before for before, after in self.burst.values()), default=0.0)

    @property
    def outcome(self) -> Outcome:
        """PASS when everything is as it must be."""
        at_fault = not self.balance.whole or self.troubles or self.faults or self.burst_left > LEFT_BY_BURST
        found = [each for verdict in self.verdicts.values() for each in verdict.judgements]
        failed = {each.measure for each in found if each.outcome is Outcome.FAIL}
        # What must not grow by one needs no long run; slopes do, until the caches of the server have filled.
        if at_fault or failed - (set() if self.messages >= ENOUGH else SLOPES):
            return Outcome.FAIL
        if self.ended or not found or any(each.outcome is not Outcome.PASS for each in found):
            return Outcome.INCONCLUSIVE
        return Outcome.PASS

    def reasons(self) -> list[str]:
        """In a line each, what is wrong."""
        found = [f"{name}: {each.measure} {each.outcome.value}"
                 for name, verdict in self.verdicts.items()
                 for each in verdict.judgements if each.outcome is not Outcome.PASS]  # fmt: skip
        found += self.balance.named
        found += [f"{text} ({count} times)" for text, count in self.troubles.items()]
        found += [f"in the log: {fault}" for fault in self.faults]
        if self.burst_left > LEFT_BY_BURST:
            found.append(f"the burst left {self.burst_left / 2**20:.1f} MiB")
        if self.ended:
            found.append(self.ended)
        if self.messages < ENOUGH and self.outcome is Outcome.INCONCLUSIVE:
            found.append(f"{self.messages:,} emails are too few: {ENOUGH:,} tell more")
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it in plain values, for --json."""
        return {
            "outcome": self.outcome.value,
            "reasons": self.reasons(),
            "messages": self.messages,
            "sessions": self.sessions,
            "seconds": round(self.seconds, 1),
            "warm_at": self.warm_at,
            "verdicts": {
                name: [{key: _plain(value) for key, value in asdict(each).items()} for each in verdict.judgements]
                for name, verdict in self.verdicts.items()
            },
            "burst": self.burst,
            "balance": asdict(self.balance),
            "windows": {name: [asdict(window) for window in windows] for name, windows in self.windows.items()},
            "samples": [asdict(sample) for sample in self.samples],
        }

    def text(self) -> str:
        """For people."""
        rate = self.messages / self.seconds if self.seconds else 0.0
        balance = self.balance
        lines = [
            f"{self.messages:,} emails in {self.seconds:.0f} s, {rate:.0f} a second, over {self.sessions:,} sessions",
            f"{balance.lost} lost, {balance.doubled} doubled, {balance.damaged} damaged; "
            f"{balance.refused:,} refused or broken off, of which {balance.unasked} were stored; "
            f"{balance.unsure} whose client did not wait",
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


def _plain(value: Any) -> Any:
    if isinstance(value, Outcome):
        return value.value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def soak(
    stage: Stage,
    effort: Effort,
    kinds: Mapping[str, float],
    say: Callable[[str], None] = lambda text: None,
    tolerances: Mapping[str, float] = TOLERANCES,
) -> Result:
    """Run it on a stage that has just been set. `say` is told of each step."""
    result = Result(balance=stage.balance)
    began = time.monotonic()
    try:
        _windows(stage, effort, kinds, result, say, tolerances, began)
        result.messages, result.seconds = stage.balance.stored, time.monotonic() - began
        if effort.burst:
            say(f"a burst of {effort.burst} sessions")
            result.burst = {f"worker {slot}": uss for slot, uss in stage.burst(effort.burst).items()}
        stage.finish()
    except ServerAtFault as error:
        stage.troubles[str(error)] += 1
    except StageFailed as error:
        result.ended = str(error)
    except KeyboardInterrupt:
        result.ended = "interrupted"
    result.messages = result.messages or stage.balance.stored
    result.seconds = result.seconds or time.monotonic() - began
    result.sessions = stage.sessions
    result.windows = {f"worker {slot}": windows for slot, windows in stage.windows.items()} | {"master": stage.master}
    result.troubles = dict(stage.troubles)
    result.faults = stage.server.faults
    result.samples = stage.samples
    return result


def _windows(
    stage: Stage,
    effort: Effort,
    kinds: Mapping[str, float],
    result: Result,
    say: Callable[[str], None],
    tolerances: Mapping[str, float],
    began: float,
) -> None:
    size = max(1, effort.messages // (WARMING + MEASURED))
    say("warming up")
    warming = 0
    while warming < WARMING and not (warming >= 3 and all(map(is_warm, stage.windows.values()))):
        stage.window(kinds, messages=size)
        warming += 1
    # The last one of the warm-up is where measuring begins.
    result.warm_at = stage.balance.stored
    first = {slot: len(windows) - 1 for slot, windows in stage.windows.items()}
    first_of_master = len(stage.master) - 1
    say("measuring")

    def so_far() -> dict[str, Verdict]:
        workers = {f"worker {slot}": windows[first.get(slot, 0) :] for slot, windows in stage.windows.items()}
        found = {name: judge(windows, tolerances=tolerances) for name, windows in workers.items()}
        found["master"] = judge(stage.master[first_of_master:], tolerances=MASTER)
        return found

    measured = 0
    while measured < MEASURED or stage.balance.stored < effort.messages or time.monotonic() - began < effort.seconds:
        if stage.window(kinds, messages=size) == 0 and effort.messages:
            raise ServerAtFault("no message was accepted in a whole window")
        measured += 1
    result.verdicts = so_far()
    for _ in range(ROUNDS if effort.messages >= ENOUGH else 0):
        if all(verdict.outcome is not Outcome.INCONCLUSIVE for verdict in result.verdicts.values()):
            return
        say("not clear yet, going on")
        for _ in range(MORE):
            stage.window(kinds, messages=size)
        result.verdicts = so_far()
    unclear = any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in result.verdicts.values())
    if unclear and effort.messages >= ENOUGH:
        stage.troubles[f"memory: not shown to be flat in {measured + ROUNDS * MORE} windows"] += 1
