"""Does a worker's memory grow with the sessions it has served?

The question is not whether there is any slope: a healthy worker has a small one, and with enough windows each slope
becomes significant. The question is whether the slope is above a tolerance. Its interval is compared with that: PASS
when all of it is at most the tolerance, FAIL when all of it is above, and else INCONCLUSIVE, which asks for more
windows.

The slope is Theil's and Sen's: the median of the slopes of all pairs of windows. The interval is Sen's: it has the
slopes between two ranks, which are as far from the median as Kendall's S strays by chance. Neighbouring windows
resemble each other, so the formula for independent values is too small for that distance. It is taken from a bootstrap
that shuffles residuals in blocks, and the formula is its lower limit. Shuffling ranks costs no new slopes, so hundreds
of rounds are quick.

A median of slopes is nearly blind to growth that happens once, which is no leak, except for a step near the middle of
the windows: half of the pairs are on both sides of it. Such a step is found, and those pairs are left out.

`scipy.stats.theilslopes` computes the same slope and the interval for independent values of one unbroken series. It
cannot leave out pairs or take another distance, so it is not used here; the tests compare with it where both apply.

Weaknesses: a leak that shows once or twice within the windows looks like a step, and only more windows tell them apart.
Memory that moves like a random walk gives intervals that are too narrow: of those for twenty windows three in four
contain the true slope, and 19 in 20 for memory that keeps half of its last deviation. The tolerances lie far above what
healthy workers show, which makes up for that.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from statistics import NormalDist, fmean, median
from types import MappingProxyType

# Growth per session, of heap and USS in bytes. Healthy workers show at most 0.002 blocks, no objects, 2 bytes of heap
# and 13 bytes of USS. An object of 64 bytes kept per session shows as one block and 120 bytes of USS.
# Measures with the tolerance 0 are counts, which must not grow by one.
TOLERANCES: Mapping[str, float] = MappingProxyType(
    {
        "blocks": 0.05,
        "objects": 0.01,
        "heap": 8.0,
        "uss": 32.0,
        "greenlets": 0.0,
        "descriptors": 0.0,
        "threads": 0.0,
        "watchers": 0.0,
    }
)
# Not every C library reports the use of its heap. All other measures are needed for a PASS.
OPTIONAL = frozenset({"heap"})
WARM = 0.01  # blocks per session
MIN_WINDOWS = 8  # with fewer, chance alone can put them all in order
CONFIDENCE = 0.98
ROUNDS = 299
BLOCK = 2.0  # the length of a block: so many times the third root of the number of windows
MIN_WINDOWS_FOR_STEP = 16  # with fewer, noise looks like a step
STEP = 10.0  # the least height of a step, in mean deviations from the two levels


@dataclass(frozen=True, slots=True)
class Window:
    """The measures of one worker at rest, after garbage was collected.

    `sessions` and `messages` are the numbers that it has served since its start; `values` has blocks
    (sys.getallocatedblocks), objects (gc.get_objects), heap and uss (bytes), greenlets, descriptors, threads, watchers.
    """

    sessions: int
    messages: int
    values: Mapping[str, float]


class Outcome(Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class MeasureVerdict:
    """One measure: its slope per session and the slope's interval, compared with the tolerance.

    The numbers are NaN when there are too few windows. For a measure with the tolerance 0, `tolerance` is a growth by
    one in all windows: a count shows no smaller slope.
    """

    measure: str
    slope: float
    low: float
    high: float
    tolerance: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """FAIL if one measure fails, PASS if all pass. `unmeasured` names the optional measures that no window has."""

    measures: tuple[MeasureVerdict, ...]
    outcome: Outcome
    unmeasured: tuple[str, ...] = ()

    def text(self) -> str:
        """Return a table with a line for each measure, and the outcome below it."""
        rows = [("per session", "slope", "interval", "tolerance", "")]
        for each in self.measures:
            low, high = format_number(each.low), format_number(each.high)
            interval = "not known" if math.isnan(each.low) else f"{low} to {high}"
            rows.append(
                (each.measure, format_number(each.slope), interval, format_number(each.tolerance), each.outcome.value),
            )
        rows += [(name, "", "not measured", "", "") for name in self.unmeasured]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), f"memory: {self.outcome.value}"])


def format_number(value: float) -> str:
    """Return a number with three significant digits, never with an exponent."""
    if math.isnan(value):
        return "-"
    return format(Decimal(f"{value + 0.0:.3g}"), ",f")


def is_warm(windows: Sequence[Window]) -> bool:
    """Return whether the last two windows each grew or shrank by less than 0.01 blocks per session."""
    if len(windows) < 3:
        return False
    for before, after in pairwise(windows[-3:]):
        served = after.sessions - before.sessions
        grown = after.values.get("blocks", math.nan) - before.values.get("blocks", math.nan)
        if served <= 0 or not abs(grown) < WARM * served:
            return False
    return True


def evaluate(windows: Sequence[Window], *, tolerances: Mapping[str, float] = TOLERANCES, seed: int = 0) -> Verdict:
    """Return the verdict on one worker's windows after its warm-up.

    The same windows and seed give the same verdict. Raises ValueError if the number of sessions falls: then they are
    not windows of one worker.
    """
    if any(after.sessions < before.sessions for before, after in pairwise(windows)):
        raise ValueError("the number of sessions falls from one window to the next: these are not one worker's")
    measures, unmeasured = [], []
    for measure, tolerance in tolerances.items():
        points = [
            (float(window.sessions), float(window.values[measure]))
            for window in windows
            if math.isfinite(window.values.get(measure, math.nan))
        ]
        if windows and not points and measure in OPTIONAL:
            unmeasured.append(measure)
        else:
            measures.append(_evaluate_measure(measure, points, tolerance, random.Random(f"{seed} {measure}")))
    outcomes = {each.outcome for each in measures}
    if Outcome.FAIL in outcomes:
        outcome = Outcome.FAIL
    elif outcomes == {Outcome.PASS}:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(tuple(measures), outcome, tuple(unmeasured))


def _evaluate_measure(
    measure: str, points: list[tuple[float, float]], tolerance: float, rng: random.Random
) -> MeasureVerdict:
    span = points[-1][0] - points[0][0] if points else 0.0
    if len(points) < MIN_WINDOWS or not span:
        return MeasureVerdict(measure, math.nan, math.nan, math.nan, tolerance, Outcome.INCONCLUSIVE)
    tolerance = tolerance or 1 / span
    slope, low, high = trend(points, rng)
    outcome = Outcome.FAIL if low > tolerance else Outcome.PASS if high <= tolerance else Outcome.INCONCLUSIVE
    return MeasureVerdict(measure, slope, low, high, tolerance, outcome)


def trend(points: Sequence[tuple[float, float]], rng: random.Random) -> tuple[float, float, float]:
    """Return Theil's and Sen's slope of the points (x, y), and the ends of its interval."""
    parts = _parts(points)
    slopes = _slopes(parts)
    slope = median(slopes)
    quantile = _kendall_quantile([_residuals(part, slope) for part in parts], rng)
    outside = max(0, math.ceil((len(slopes) - quantile) / 2) - 1)
    return slope, slopes[outside], slopes[-1 - outside]


def _slopes(parts: Sequence[Sequence[tuple[float, float]]]) -> list[float]:
    """Return the slopes of all pairs of points within a part, sorted."""
    return sorted(
        (y2 - y1) / (x2 - x1) for part in parts for i, (x2, y2) in enumerate(part) for x1, y1 in part[:i] if x1 != x2
    )


def _residuals(part: Sequence[tuple[float, float]], slope: float) -> list[float]:
    left = [y - slope * x for x, y in part]
    level = median(left)
    return [value - level for value in left]


def _parts(points: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    """Return the points before and after a step that happens once, or all of them as one part.

    A step can only be where neighbours differ most. It is a step if it stays: when each side has a level of its own and
    both have one slope, little deviation is left.
    """
    if len(points) < MIN_WINDOWS_FOR_STEP:
        return [points]
    slope = median(_slopes([points]))
    left = _residuals(points, slope)
    jumps = [abs(after - before) for before, after in pairwise(left)]
    place = jumps.index(max(jumps)) + 1
    parts = [points[:place], points[place:]]
    slopes = _slopes(parts)
    if not slopes:
        return [points]
    slope = median(slopes)
    before, after = ([y - slope * x for x, y in part] for part in parts)
    height = abs(median(after) - median(before))
    deviation = fmean(abs(value) for part in parts for value in _residuals(part, slope))
    return parts if height > STEP * deviation else [points]


def _kendall_quantile(parts: Sequence[Sequence[float]], rng: random.Random) -> float:
    """Return how far Kendall's S of residuals strays from 0 by chance: its quantile at CONFIDENCE."""
    values = [value for part in parts for value in part]
    number = len(values)
    block = max(2, round(BLOCK * math.cbrt(number)))
    wrapped = values + values[:block]
    found: list[int] = []
    for _ in range(ROUNDS):
        shuffled: list[float] = []
        while len(shuffled) < number:
            start = int(rng.random() * number)
            shuffled += wrapped[start : start + block]
        first, total = 0, 0
        for part in parts:
            seen: list[float] = []
            for value in shuffled[first : first + len(part)]:
                total += bisect_left(seen, value) + bisect_right(seen, value) - len(seen)
                insort(seen, value)
            first += len(part)
        found.append(abs(total))
    found.sort()
    # The residuals of a fitted line lack their slowest part, and the more so the fewer blocks there are.
    shuffled_quantile = found[math.ceil(CONFIDENCE * ROUNDS) - 1] / (1 - block / number)
    independent = math.sqrt(sum(n * (n - 1) * (2 * n + 5) / 18 for n in map(len, parts)))
    return max(shuffled_quantile, NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * independent)
