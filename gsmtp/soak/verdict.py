"""Does a worker's memory grow with the sessions it has served?

Not "is there any slope": a healthy worker has a small one, and with enough windows each becomes significant. The
question is whether the slope is above a tolerance, so its interval is held against that: PASS when all of it is at
most the tolerance, FAIL when all of it is above, and INCONCLUSIVE, which asks for more windows, else.

The slope is Theil's and Sen's: the median of the slopes of all pairs of windows. The interval is Sen's: the slopes
between two ranks, as far from the median as Kendall's S strays by chance. Neighbouring windows resemble each other, so
how far S strays is not taken from its formula for independent values but from a bootstrap that shuffles residuals in
blocks (the formula is what it is at least). Shuffling ranks costs no new slopes, so hundreds of rounds are quick.

What happens once is no leak, and a median of slopes is nearly blind to it, except for a step near the middle of the
windows: half of the pairs straddle it. Such a step is found, and pairs that straddle it are left out.

Where this is weak: a leak that shows once or twice within the windows looks like a step, and only more windows tell
them apart. Memory that wanders like a random walk gives intervals that are too narrow (of those for twenty windows,
three in four have the true slope, of those for memory that remembers half of its last deviation 19 in 20); the
tolerances lie far above what healthy workers show, which is the reserve for that.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right, insort
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from itertools import pairwise
from statistics import NormalDist, fmean, median
from types import MappingProxyType

# Growth per session: blocks, objects; bytes of heap and USS. Healthy workers show at most 0.002 blocks, no objects, 2
# bytes of heap, and 13 bytes of USS; an object of 64 bytes kept per session shows one block and 120 bytes of USS.
# What has the tolerance 0 counts whole things that must not grow.
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
# Not every C library can say what its heap has in use. All other measures have to be there for a PASS.
OPTIONAL = frozenset({"heap"})
WARM = 0.01  # blocks per session
FEWEST = 8  # windows: with fewer, chance alone can order them all
LEVEL = 0.98
ROUNDS = 299
BLOCK = 2.0  # times the third root of the number of windows: the length of a block
ENOUGH = 16  # windows to look for a step: with fewer, noise makes some
STEP = 10.0  # a step is at least so many times the mean deviation that is left without it


@dataclass(frozen=True, slots=True)
class Window:
    """One worker at rest, after gc.collect() twice.

    `sessions` and `messages` are what it has served since its start; `values` has blocks (sys.getallocatedblocks),
    objects (gc.get_objects), heap and uss (bytes), greenlets, descriptors, threads, watchers.
    """

    sessions: int
    messages: int
    values: Mapping[str, float]


class Outcome(Enum):
    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True, slots=True)
class Judgement:
    """One measure: its slope per session and the interval, held against the tolerance.

    The numbers are NaN when there was nothing to judge. For a measure with the tolerance 0 the tolerance here is a
    growth by one within all windows: whole things show no smaller slope.
    """

    measure: str
    slope: float
    low: float
    high: float
    tolerance: float
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Verdict:
    """FAIL if one measure fails, PASS if all pass. `unmeasured`: optional measures that no window has."""

    judgements: tuple[Judgement, ...]
    outcome: Outcome
    unmeasured: tuple[str, ...] = field(default=())

    def text(self) -> str:
        """A table with a line for each measure, and the outcome below it."""
        rows = [("per session", "slope", "interval", "tolerance", "")]
        for each in self.judgements:
            interval = "not known" if math.isnan(each.low) else f"{shown(each.low)} to {shown(each.high)}"
            rows.append(
                (each.measure, shown(each.slope), interval, shown(each.tolerance), each.outcome.value),
            )
        rows += [(name, "", "not measured", "", "") for name in self.unmeasured]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}"
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), f"memory: {self.outcome.value}"])


def shown(value: float) -> str:
    """Three digits that count, never with an exponent."""
    if math.isnan(value):
        return "-"
    return format(Decimal(f"{value + 0.0:.3g}"), ",f") if math.isfinite(value) else str(value)


def is_warm(windows: Sequence[Window]) -> bool:
    """Whether each of the last two windows differs from the one before it by less than 0.01 blocks per session."""
    if len(windows) < 3:
        return False
    for before, after in pairwise(windows[-3:]):
        served = after.sessions - before.sessions
        grown = after.values.get("blocks", math.nan) - before.values.get("blocks", math.nan)
        if served <= 0 or not abs(grown) < WARM * served:
            return False
    return True


def judge(windows: Sequence[Window], *, tolerances: Mapping[str, float] = TOLERANCES, seed: int = 0) -> Verdict:
    """The verdict on one worker's windows after its warm-up, the same for the same windows and seed.

    ValueError if the number of sessions falls: then they are not windows of one worker.
    """
    if any(after.sessions < before.sessions for before, after in pairwise(windows)):
        raise ValueError("the number of sessions falls from one window to the next: these are not one worker's")
    judgements, unmeasured = [], []
    for measure, tolerance in tolerances.items():
        points = [
            (float(window.sessions), float(window.values[measure]))
            for window in windows
            if math.isfinite(window.values.get(measure, math.nan))
        ]
        if windows and not points and measure in OPTIONAL:
            unmeasured.append(measure)
        else:
            judgements.append(_judge(measure, points, tolerance, random.Random(f"{seed} {measure}")))
    outcomes = {each.outcome for each in judgements}
    if Outcome.FAIL in outcomes:
        outcome = Outcome.FAIL
    elif outcomes == {Outcome.PASS}:
        outcome = Outcome.PASS
    else:
        outcome = Outcome.INCONCLUSIVE
    return Verdict(tuple(judgements), outcome, tuple(unmeasured))


def _judge(measure: str, points: list[tuple[float, float]], tolerance: float, chance: random.Random) -> Judgement:
    span = points[-1][0] - points[0][0] if points else 0.0
    if len(points) < FEWEST or not span:
        return Judgement(measure, math.nan, math.nan, math.nan, tolerance, Outcome.INCONCLUSIVE)
    tolerance = tolerance or 1 / span
    slope, low, high = trend(points, chance)
    outcome = Outcome.FAIL if low > tolerance else Outcome.PASS if high <= tolerance else Outcome.INCONCLUSIVE
    return Judgement(measure, slope, low, high, tolerance, outcome)


def trend(points: Sequence[tuple[float, float]], chance: random.Random) -> tuple[float, float, float]:
    """Theil's and Sen's slope of the points (x, y), and the ends of its interval."""
    parts = _parts(points)
    slopes = _slopes(parts)
    slope = median(slopes)
    stray = _stray([_residuals(part, slope) for part in parts], chance)
    outside = max(0, math.ceil((len(slopes) - stray) / 2) - 1)
    return slope, slopes[outside], slopes[-1 - outside]


def _slopes(parts: Sequence[Sequence[tuple[float, float]]]) -> list[float]:
    """The slopes of all pairs of points within a part, in order."""
    return sorted(
        (y2 - y1) / (x2 - x1) for part in parts for i, (x2, y2) in enumerate(part) for x1, y1 in part[:i] if x1 != x2
    )


def _residuals(part: Sequence[tuple[float, float]], slope: float) -> list[float]:
    left = [y - slope * x for x, y in part]
    level = median(left)
    return [value - level for value in left]


def _parts(points: Sequence[tuple[float, float]]) -> list[Sequence[tuple[float, float]]]:
    """The points before and after a step that happens once, or all of them as one part.

    The place can only be where neighbours differ most. It is a step if it stays: both sides, each with a level of its
    own and one slope for both, then leave little.
    """
    if len(points) < ENOUGH:
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


def _stray(parts: Sequence[Sequence[float]], chance: random.Random) -> float:
    """How far Kendall's S of residuals strays from 0 by chance: its quantile at LEVEL."""
    together = [value for part in parts for value in part]
    number = len(together)
    block = max(2, round(BLOCK * math.cbrt(number)))
    around = together + together[:block]
    found: list[int] = []
    for _ in range(ROUNDS):
        shuffled: list[float] = []
        while len(shuffled) < number:
            start = int(chance.random() * number)
            shuffled += around[start : start + block]
        first, total = 0, 0
        for part in parts:
            seen: list[float] = []
            for value in shuffled[first : first + len(part)]:
                total += bisect_left(seen, value) + bisect_right(seen, value) - len(seen)
                insort(seen, value)
            first += len(part)
        found.append(abs(total))
    found.sort()
    # Residuals of a fitted line lack their slowest part, and the more so the fewer blocks they make.
    shuffled_stray = found[math.ceil(LEVEL * ROUNDS) - 1] / (1 - block / number)
    independent = math.sqrt(sum(n * (n - 1) * (2 * n + 5) / 18 for n in map(len, parts)))
    return max(shuffled_stray, NormalDist().inv_cdf((1 + LEVEL) / 2) * independent)
