"""Draws a run: the memory of every process, the rate, and the loop lag of the workers, over the messages.

The axis of the memory begins at 0, so that what looks flat is flat. Matplotlib is imported only when a plot is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 400  # of one line: about one for two pixels
ALL_POINTS = 4800  # of all lines: an SVG keeps each, at some 25 octets
MIB = 1 << 20
GREY = "#5f6b76"
COLOURS = ("#0b6fb8", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#444444", "#17becf", "#c9a800")
VERDICTS = {"PASS": "#1a7f37", "FAIL": "#cf222e"}
UNDECIDED = "#9a6700"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of the server at one time.

    `seconds` is the time since the start, `messages` the number accepted by then, `rate` that of messages per second.
    `memory` has the USS in bytes and `lag` the loop lag in seconds, by the name of the process; they lack processes
    that do not run.
    """

    seconds: float
    messages: int
    rate: float
    memory: Mapping[str, float]
    lag: Mapping[str, float]


def draw(samples: Sequence[Sample], path: str, *, title: str, verdict: str, warm_at: int | None = None) -> list[str]:
    """Draw a plot as SVG and as PNG, and return their two paths: `path` with .svg and .png.

    `verdict` is the word to show (PASS, FAIL, INCONCLUSIVE), `warm_at` the number of messages that ended the warm-up.
    Raises ModuleNotFoundError without matplotlib, ValueError without samples, OSError if a file cannot be written.
    """
    if not samples:
        raise ValueError("there are no samples to draw")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a plot needs matplotlib: pip install 'gsmtp[soak]'", name=error.name) from error

    # Text drawn as outlines looks the same wherever the SVG is shown. The salt makes its ids the same in each run.
    with matplotlib.rc_context({"font.size": 10, "svg.fonttype": "path", "svg.hashsalt": "gsmtp"}):
        figure = Figure(figsize=(9, 6.2), facecolor="white")
        FigureCanvasAgg(figure)
        _draw(figure, samples, title, verdict, warm_at)
        base = Path(path)
        if base.suffix in (".svg", ".png"):
            base = base.with_suffix("")
        paths = [f"{base}.svg", f"{base}.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=110)
    return paths


def _draw(figure: Figure, samples: Sequence[Sample], title: str, verdict: str, warm_at: int | None) -> None:
    memory, rate, lag = figure.subplots(3, 1, sharex=True, height_ratios=[5, 2, 2])
    figure.subplots_adjust(left=0.1, right=0.96, top=0.93, bottom=0.09, hspace=0.14)
    last = samples[-1]
    end = max(last.messages, 1)
    memory.set_title(title, loc="left", fontsize=13, fontweight="bold")
    memory.set_title(
        f" {verdict} ",
        loc="right",
        fontsize=13,
        fontweight="bold",
        color="white",
        bbox={"facecolor": VERDICTS.get(verdict, UNDECIDED), "edgecolor": "none", "boxstyle": "round,pad=0.25"},
    )
    names = list(dict.fromkeys(name for sample in samples for name in (*sample.memory, *sample.lag)))
    colours = {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}
    points = min(POINTS, ALL_POINTS // (2 * len(names) + 1))
    for name, colour in colours.items():
        held = [sample.memory.get(name, math.nan) / MIB for sample in samples]
        late = [sample.lag.get(name, math.nan) * 1000 for sample in samples]
        for axes, values in ((memory, held), (lag, late)):
            axes.plot(*_thin(samples, values, max, points), color=colour, linewidth=1.4, label=name)
    rate.plot(*_thin(samples, [sample.rate for sample in samples], fmean, points), color=GREY, linewidth=1.4)
    for axes, label in ((memory, "memory (USS), MiB"), (rate, "messages\nper second"), (lag, "loop lag, ms")):
        axes.set_ylabel(label)
        axes.margins(y=0.12)
        axes.set_ylim(0, axes.get_ylim()[1])
        axes.set_xlim(0, end)
        axes.grid(axis="y", color="#e3e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        if warm_at:
            axes.axvspan(0, min(warm_at, end), color="#eef1f4", linewidth=0, zorder=0)
    if warm_at:
        wide = warm_at > end / 10  # there is room for the word
        memory.text(
            min(warm_at, end) / 2 if wide else warm_at,
            0.02,
            "warm-up" if wide else " warm-up",
            transform=memory.get_xaxis_transform(),
            horizontalalignment="center" if wide else "left",
            color=GREY,
        )
    memory.legend(loc="lower right", ncols=min(len(names), 4), edgecolor="none")
    lag.set_xlabel(f"messages ({last.messages:,} in {_format_duration(last.seconds)})")
    lag.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.align_ylabels([memory, rate, lag])


def _thin(
    samples: Sequence[Sample], values: Sequence[float], summary: Callable[[list[float]], float], points: int
) -> tuple[list[float], list[float]]:
    """Return x and y of at most `points` points: neighbours are combined by `summary`, gaps stay gaps."""
    size = math.ceil(len(samples) / points)
    xs, ys = [], []
    for first in range(0, len(samples), size):
        known = [value for value in values[first : first + size] if math.isfinite(value)]
        xs.append(fmean(sample.messages for sample in samples[first : first + size]))
        ys.append(summary(known) if known else math.nan)
    return xs, ys


def _format_duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:.1f} h"
