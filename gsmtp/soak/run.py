"""The procedure of a run: warm up, measure twenty windows, evaluate, measure more if that is open, a burst, the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gsmtp.soak.client import ClientDied
from gsmtp.soak.harness import Harness, HarnessError, ServerFault
from gsmtp.soak.report import MIN_MESSAGES, Report
from gsmtp.soak.verdict import TOLERANCES, Outcome, Verdict, evaluate, is_warm

MEASURED = 20  # windows after the warm-up
# The most windows of the warm-up. In mixed traffic blocks vary by some hundredths a session, so that two quiet windows
# in a row are chance; with a leak there are never two.
WARM_UP = 5
EXTRA, EXTRA_ROUNDS = 10, 3  # further windows while the verdict is open, and how often
BURST = 1500  # sessions
# Only these can be measured of the master from outside. Its sessions are those of all workers.
MASTER_TOLERANCES = {name: TOLERANCES[name] for name in ("uss", "descriptors", "threads")}


@dataclass(frozen=True)
class RunLength:
    """How long a run is.

    It sends `messages` in windows of a 25th, or more until `seconds` are over. `burst` is a number of sessions; 0
    leaves the burst out.
    """

    messages: int = 100_000
    seconds: float = 0.0
    burst: int = BURST


def run_soak(
    harness: Harness,
    length: RunLength,
    kinds: Mapping[str, float],
    on_step: Callable[[str], None] = lambda text: None,
    tolerances: Mapping[str, float] = TOLERANCES,
) -> Report:
    """Run the procedure on a harness that has just been started, and return the report.

    `kinds` are the conversations and their weights. `on_step` is called with a line of text at each step. What ends
    the run early is in the report. Raises OSError when files of the run cannot be read or written.
    """
    report = Report(deliveries=harness.deliveries)
    start = time.monotonic()
    try:
        _run_windows(harness, length, kinds, report, on_step, tolerances, start)
        report.messages, report.seconds = harness.deliveries.stored, time.monotonic() - start
        if length.burst:
            on_step(f"a burst of {length.burst} sessions")
            report.burst = {f"worker {slot}": uss for slot, uss in harness.burst(length.burst).items()}
        harness.stop_server()
    except ServerFault as error:
        harness.problems[str(error)] += 1
    except (HarnessError, ClientDied) as error:
        report.ended = str(error)
    except KeyboardInterrupt:
        report.ended = "interrupted"
    report.messages = report.messages or harness.deliveries.stored
    report.seconds = report.seconds or time.monotonic() - start
    report.sessions = harness.sessions
    report.windows = {f"worker {slot}": windows for slot, windows in harness.windows.items()}
    report.windows["master"] = harness.master_windows
    report.problems = dict(harness.problems)
    report.log_errors = harness.server.log_errors
    report.samples = harness.samples
    return report


def _run_windows(
    harness: Harness,
    length: RunLength,
    kinds: Mapping[str, float],
    report: Report,
    on_step: Callable[[str], None],
    tolerances: Mapping[str, float],
    start: float,
) -> None:
    size = max(1, length.messages // (WARM_UP + MEASURED))
    on_step("warming up")
    warmed = 0
    while warmed < WARM_UP and not (warmed >= 3 and all(map(is_warm, harness.windows.values()))):
        harness.run_window(kinds, messages=size)
        warmed += 1
    # The last window of the warm-up is the first point that is evaluated.
    report.warm_at = harness.deliveries.stored
    first = {slot: len(windows) - 1 for slot, windows in harness.windows.items()}
    first_of_master = len(harness.master_windows) - 1
    on_step("measuring")

    def evaluate_all() -> dict[str, Verdict]:
        workers = {f"worker {slot}": windows[first.get(slot, 0) :] for slot, windows in harness.windows.items()}
        verdicts = {name: evaluate(windows, tolerances=tolerances) for name, windows in workers.items()}
        verdicts["master"] = evaluate(harness.master_windows[first_of_master:], tolerances=MASTER_TOLERANCES)
        return verdicts

    measured = 0
    while (
        measured < MEASURED or harness.deliveries.stored < length.messages or time.monotonic() - start < length.seconds
    ):
        if harness.run_window(kinds, messages=size) == 0 and length.messages:
            raise ServerFault("no message was accepted in a whole window")
        measured += 1
    report.verdicts = evaluate_all()
    for _ in range(EXTRA_ROUNDS if length.messages >= MIN_MESSAGES else 0):
        if all(verdict.outcome is not Outcome.INCONCLUSIVE for verdict in report.verdicts.values()):
            return
        on_step("not clear yet, going on")
        for _ in range(EXTRA):
            harness.run_window(kinds, messages=size)
        report.verdicts = evaluate_all()
    is_open = any(verdict.outcome is Outcome.INCONCLUSIVE for verdict in report.verdicts.values())
    if is_open and length.messages >= MIN_MESSAGES:
        harness.problems[f"memory: not shown to be flat in {measured + EXTRA_ROUNDS * EXTRA} windows"] += 1
