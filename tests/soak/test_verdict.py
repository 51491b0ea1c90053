"""The verdict on memory: series whose slopes are known, with noise as workers have it."""

from __future__ import annotations

import math
import random
import time
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import pytest
from scipy.stats import theilslopes

from gsmtp.soak.verdict import CONFIDENCE, TOLERANCES, MeasureVerdict, Outcome, Verdict, Window, evaluate, is_warm

SERVED = 1000  # sessions in a window
PAGE = 4096
MIB = 1 << 20
# Noise of a window's value that gives slopes over twenty windows the spread that healthy workers show: 13 bytes of
# USS per session, 2 bytes of heap, 0.002 blocks (two standard errors of a line fitted to twenty windows).
SPREAD = SERVED * math.sqrt(20**3 / 12) / 2
HEALTHY = {"blocks": 0.002 * SPREAD, "objects": 0.0, "heap": 2 * SPREAD, "uss": 13 * SPREAD}
COUNTS = ("greenlets", "descriptors", "threads", "watchers")


def white(chance: random.Random) -> Iterator[float]:
    while True:
        yield chance.gauss(0, 1)


def heavy(chance: random.Random) -> Iterator[float]:
    """Student's t with three degrees of freedom: now and then a spike."""
    while True:
        yield chance.gauss(0, 1) / math.sqrt(sum(chance.gauss(0, 1) ** 2 for _ in range(3)) / 3)


def remembering(share: float) -> Callable[[random.Random], Iterator[float]]:
    """Each value keeps a share of the one before."""

    def noise(chance: random.Random) -> Iterator[float]:
        value = chance.gauss(0, 1)
        while True:
            yield value
            value = share * value + chance.gauss(0, math.sqrt(1 - share * share))

    return noise


def wandering(chance: random.Random) -> Iterator[float]:
    """A random walk with the same spread over twenty windows."""
    value = 0.0
    while True:
        yield value
        value += chance.gauss(0, 1 / math.sqrt(20))


def windows(**values: Sequence[float]) -> list[Window]:
    """A window for each place in the values; measures that are not given stay as they are."""
    number = len(next(iter(values.values())))
    still = {name: [1000.0] * number for name in TOLERANCES}
    series = still | values
    return [
        Window(SERVED * (place + 5), SERVED * (place + 5), {name: each[place] for name, each in series.items()})
        for place in range(number)
    ]


def line(number: int, slope: float, noise: Iterator[float] | None = None, size: float = 0.0) -> list[float]:
    """A value that grows by `slope` per session, with noise."""
    return [1e6 + slope * SERVED * place + (size * next(noise) if noise else 0.0) for place in range(number)]


def only(verdict: Verdict, measure: str) -> MeasureVerdict:
    (found,) = (each for each in verdict.measures if each.measure == measure)
    return found


def judged(measure: str, values: Sequence[float], seed: int = 0) -> MeasureVerdict:
    """The judgement of one measure alone."""
    return only(evaluate(windows(**{measure: values}), tolerances={measure: TOLERANCES[measure]}, seed=seed), measure)


@pytest.mark.parametrize(
    ("noise", "number", "least"),
    [
        (white, 8, 0.97),
        (white, 20, 0.97),
        (white, 60, 0.97),
        (heavy, 20, 0.97),
        (remembering(0.3), 20, 0.94),
        (remembering(0.5), 20, 0.92),
        (remembering(0.7), 20, 0.88),
        (remembering(0.5), 60, 0.90),
        (wandering, 20, 0.65),
    ],
)
def test_how_often_the_interval_has_the_true_slope(
    noise: Callable[[random.Random], Iterator[float]], number: int, least: float
) -> None:
    rounds = 100 if number < 60 else 50
    covered = 0
    for seed in range(rounds):
        values = line(number, 20.0, noise(random.Random(seed)), HEALTHY["uss"])
        found = judged("uss", values, seed)
        assert found.low <= found.slope <= found.high
        covered += found.low <= 20.0 <= found.high
    assert covered / rounds >= least


@pytest.mark.parametrize("noise", [white, heavy, remembering(0.5)])
@pytest.mark.parametrize("number", [8, 15])  # too few for a step to be looked for
def test_scipy_finds_the_same_slope_and_a_narrower_interval(
    number: int, noise: Callable[[random.Random], Iterator[float]]
) -> None:
    """scipy's interval is that for independent values, which is the least that ours may be."""
    for seed in range(20):
        values = line(number, 20.0, noise(random.Random(seed)), HEALTHY["uss"])
        found = judged("uss", values, seed)
        x = [SERVED * (place + 5) for place in range(number)]
        slope, _, low, high = theilslopes(values, x, CONFIDENCE)
        assert found.slope == pytest.approx(slope)
        ranks = sorted((b - a) / SERVED / (j - i) for (i, a), (j, b) in combinations(enumerate(values), 2))
        # The two round the rank of an end in their own ways.
        assert bisect(ranks, found.low) <= bisect(ranks, low) + 1
        assert bisect(ranks, found.high) >= bisect(ranks, high) - 1


def worker(number: int, seed: int, **slopes: float) -> list[Window]:
    """A worker with healthy noise, USS in whole pages, and slopes as given."""
    chance = random.Random(seed)
    series = {
        name: line(number, slopes.get(name, 0.0), remembering(0.3)(chance), size) for name, size in HEALTHY.items()
    }
    series["uss"] = [PAGE * round(value / PAGE) for value in series["uss"]]
    series |= {name: [20 + slopes.get(name, 0.0) * SERVED * place for place in range(number)] for name in COUNTS}
    return windows(**series)


def test_a_healthy_worker_passes_and_never_fails() -> None:
    """With noise as large as it was ever seen, some ask for twenty windows more, and then pass."""
    outcomes = [evaluate(worker(20, seed), seed=seed).outcome for seed in range(20)]
    assert Outcome.FAIL not in outcomes
    assert outcomes.count(Outcome.PASS) >= 10
    assert all(evaluate(worker(40, seed), seed=seed).outcome is Outcome.PASS for seed in range(20))


def test_memory_that_wanders_does_not_fail() -> None:
    for seed in range(50):
        values = line(20, 0.0, wandering(random.Random(seed)), HEALTHY["uss"])
        assert judged("uss", values, seed).outcome is not Outcome.FAIL


def test_an_object_kept_per_session_fails_by_blocks_and_uss() -> None:
    for seed in range(20):
        verdict = evaluate(worker(20, seed, blocks=1.0, heap=9.0, uss=120.0), seed=seed)
        failed = {each.measure for each in verdict.measures if each.outcome is Outcome.FAIL}
        assert verdict.outcome is Outcome.FAIL
        assert {"blocks", "uss"} <= failed <= {"blocks", "uss", "heap"}


def test_an_object_kept_in_every_tenth_session_fails_by_blocks_alone() -> None:
    for seed in range(20):
        verdict = evaluate(worker(20, seed, blocks=0.1, uss=12.0), seed=seed)
        assert [each.measure for each in verdict.measures if each.outcome is Outcome.FAIL] == ["blocks"]


@pytest.mark.parametrize("noise", [white, heavy, remembering(0.5)])
def test_a_slow_leak_in_noise_never_passes_and_more_windows_show_it(
    noise: Callable[[random.Random], Iterator[float]],
) -> None:
    size = 3 * HEALTHY["uss"]
    shown = []
    for seed in range(20):
        values = line(60, 64.0, noise(random.Random(seed)), size)
        assert judged("uss", values[:20], seed).outcome is not Outcome.PASS
        shown.append(judged("uss", values, seed).outcome)
    assert shown.count(Outcome.FAIL) >= 19
    assert Outcome.PASS not in shown


def test_a_healthy_slope_that_is_surely_above_0_passes() -> None:
    values = [PAGE * round(value / PAGE) for value in line(40, 2.2, white(random.Random(3)), 1.4 * SPREAD)]
    found = judged("uss", values)
    assert 0 < found.low < 2.2 < found.high < 5
    assert found.outcome is Outcome.PASS


def test_uss_that_grows_by_a_page_now_and_then() -> None:
    """Less than a page in a window: a stair with many steps is a slope."""
    found = judged("uss", [PAGE * (place // 4) for place in range(20)])
    assert found.low <= PAGE / 4 / SERVED <= found.high
    assert found.outcome is Outcome.PASS
    assert judged("uss", [64 * PAGE * (place // 4) for place in range(20)]).outcome is Outcome.FAIL


@pytest.mark.parametrize("number", [8, 20, 60])
def test_what_stands_still_passes_without_doubt(number: int) -> None:
    verdict = evaluate(windows(uss=[5e7] * number))
    assert verdict.outcome is Outcome.PASS
    assert {(each.slope, each.low, each.high) for each in verdict.measures} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("size", [8 * MIB, -8 * MIB])
@pytest.mark.parametrize("place", range(1, 20))
def test_a_step_that_happens_once_is_no_leak(place: int, size: float) -> None:
    """Also in the middle, where half of the pairs of windows straddle it."""
    values = line(20, 0.0, white(random.Random(place)), HEALTHY["uss"] / 2)
    values = [value + size * (number >= place) for number, value in enumerate(values)]
    assert judged("uss", values).outcome is Outcome.PASS


@pytest.mark.parametrize("size", [8 * MIB, -8 * MIB])
@pytest.mark.parametrize("place", range(1, 20))
def test_a_step_does_not_hide_a_leak(place: int, size: float) -> None:
    values = line(20, 120.0, white(random.Random(place)), HEALTHY["uss"] / 2)
    values = [value + size * (number >= place) for number, value in enumerate(values)]
    found = judged("uss", values)
    assert found.outcome is Outcome.FAIL
    assert found.slope == pytest.approx(120, abs=30)


def test_two_steps_are_no_slope_and_no_pass() -> None:
    stair = [8.0 * MIB * ((place >= 7) + (place >= 14)) for place in range(20)]
    assert judged("uss", stair).outcome is Outcome.INCONCLUSIVE
    assert judged("threads", [place // 7 for place in range(20)]).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("measure", COUNTS)
@pytest.mark.parametrize("each", [1, 10, 1000, 3000])
def test_a_count_that_grows_steadily_fails(measure: str, each: int) -> None:
    """By one in so many sessions; a window has a thousand."""
    assert judged(measure, [7 + SERVED * place // each for place in range(20)]).outcome is Outcome.FAIL


def test_a_count_that_seldom_grows_fails_after_more_windows() -> None:
    values = [7 + SERVED * place // 7000 for place in range(60)]
    assert judged("descriptors", values[:20]).outcome is Outcome.INCONCLUSIVE
    assert judged("descriptors", values).outcome is Outcome.FAIL


@pytest.mark.parametrize("growth", [1, 10])
@pytest.mark.parametrize("place", range(1, 20))
def test_a_count_that_grows_once_passes(place: int, growth: int) -> None:
    """As a thread pool that gets a thread when it needs one."""
    assert judged("threads", [7 + growth * (number >= place) for number in range(20)]).outcome is Outcome.PASS


@pytest.mark.parametrize("number", [20, 60])
def test_a_count_that_flickers_passes(number: int) -> None:
    """A greenlet that has not ended when the window is taken."""
    for seed in range(30):
        chance = random.Random(seed)
        values = [5 + (chance.random() < 0.2) for _ in range(number)]
        assert judged("greenlets", values, seed).outcome is Outcome.PASS


def test_few_windows_are_not_enough() -> None:
    for number in range(8):
        verdict = evaluate(windows(descriptors=[SERVED * place for place in range(number)]))
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert math.isnan(only(verdict, "descriptors").slope)
        assert len(verdict.measures) == len(TOLERANCES)


def test_eight_windows_are_enough_for_a_control() -> None:
    verdict = evaluate(windows(descriptors=[SERVED * place for place in range(8)]))
    assert only(verdict, "descriptors").outcome is Outcome.FAIL
    assert only(verdict, "descriptors").slope == 1.0
    assert verdict.outcome is Outcome.FAIL


def without(windows: Sequence[Window], measure: str) -> list[Window]:
    return [
        Window(each.sessions, each.messages, {name: each.values[name] for name in each.values if name != measure})
        for each in windows
    ]


def test_without_heap_the_others_decide_and_the_text_says_so() -> None:
    verdict = evaluate(without(worker(40, 1), "heap"))
    assert verdict.outcome is Outcome.PASS
    assert verdict.unmeasured == ("heap",)
    assert ["heap", "not", "measured"] in [text.split() for text in verdict.text().splitlines()]
    assert evaluate(without(worker(20, 1, blocks=1.0), "heap")).outcome is Outcome.FAIL


@pytest.mark.parametrize("measure", sorted(TOLERANCES.keys() - {"heap"}))
def test_without_another_measure_nothing_passes(measure: str) -> None:
    verdict = evaluate(without(worker(20, 1), measure))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert only(verdict, measure).outcome is Outcome.INCONCLUSIVE


def test_windows_that_lack_a_measure_are_left_out_of_it() -> None:
    values = line(20, 120.0)
    values[3] = values[17] = math.nan
    found = judged("uss", values)
    assert found.slope == pytest.approx(120.0)
    assert found.outcome is Outcome.FAIL
    assert judged("uss", [math.nan] * 13 + values[13:]).outcome is Outcome.INCONCLUSIVE


def test_nothing_to_judge_is_no_pass() -> None:
    assert evaluate([]).outcome is Outcome.INCONCLUSIVE
    assert evaluate(worker(20, 1), tolerances={}).outcome is Outcome.INCONCLUSIVE


def test_windows_without_sessions_say_nothing() -> None:
    idle = [Window(100, 100, dict.fromkeys(TOLERANCES, float(place))) for place in range(20)]
    assert evaluate(idle).outcome is Outcome.INCONCLUSIVE


def test_windows_that_stall_are_no_error() -> None:
    """No session between some windows: such pairs have no slope."""
    sessions = [0] * 10 + [1000] * 10
    stalled = [Window(served, served, dict.fromkeys(TOLERANCES, 0.0)) for served in sessions]
    assert evaluate(stalled).outcome is Outcome.PASS


def test_windows_of_two_workers_are_refused() -> None:
    mixed = [*worker(20, 1), *worker(20, 2)]
    with pytest.raises(ValueError, match="not one worker's"):
        evaluate(mixed)


def test_the_same_windows_and_seed_give_the_same_verdict() -> None:
    taken = worker(20, 4, uss=20.0)
    assert evaluate(taken, seed=1) == evaluate(taken, seed=1)
    assert len({only(evaluate(taken, seed=seed), "uss").high for seed in range(5)}) > 1
    backwards = dict(reversed(list(TOLERANCES.items())))
    assert evaluate(taken, tolerances=backwards).measures[::-1] == evaluate(taken).measures


def test_a_verdict_is_quick() -> None:
    taken = worker(60, 1)

    def used() -> float:
        before = time.process_time()
        evaluate(taken)
        return time.process_time() - before

    assert min(used() for _ in range(3)) < 1.0


def test_warm_is_when_two_windows_grew_by_less_than_a_hundredth_of_a_block() -> None:
    cold, cool, warm = 0.02 * SERVED, 0.01 * SERVED, 0.009 * SERVED
    for growths, expected in [
        ([], False),
        ([warm], False),
        ([warm, warm], True),
        ([cold, warm, -warm], True),
        ([warm, cold, warm], False),
        ([warm, warm, cool], False),
        ([warm, warm, -cold], False),
    ]:
        blocks = [5000.0]
        for growth in growths:
            blocks.append(blocks[-1] + growth)
        assert is_warm(windows(blocks=blocks)) is expected, growths


def test_not_warm_without_sessions_or_blocks() -> None:
    assert not is_warm([])
    assert not is_warm([Window(100, 100, {"blocks": 1.0})] * 3)
    assert not is_warm(without(worker(5, 1), "blocks"))


def test_the_text_is_a_table_that_ends_with_the_outcome() -> None:
    text = evaluate(worker(20, 1, descriptors=1.0)).text()
    lines = text.splitlines()
    assert lines[0].split() == ["per", "session", "slope", "interval", "tolerance"]
    assert [each.split()[0] for each in lines[1:-1]] == list(TOLERANCES)
    (descriptors,) = (each.split() for each in lines if each.startswith("descriptors"))
    assert descriptors == ["descriptors", "1", "1", "to", "1", "0.0000526", "FAIL"]
    assert lines[-1] == "memory: FAIL"
    assert "e-" not in text
    assert max(map(len, lines)) < 80


def test_the_text_says_what_is_not_known() -> None:
    (line,) = (each for each in evaluate(worker(3, 1)).text().splitlines() if each.startswith("uss"))
    assert line.split() == ["uss", "-", "not", "known", "32", "INCONCLUSIVE"]
