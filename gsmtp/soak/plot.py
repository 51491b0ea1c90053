"""The soak as a picture: memory of every process, rate, and how late the workers' loops were, over the messages.

The memory's axis begins at 0: what looks flat is flat. Matplotlib is only needed to draw, so only then imported.
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

POINTS = 400  # of a line: about one for two pixels
ALL_POINTS = 4800  # of all lines: an SVG keeps each, at some 25 octets
MIB = 1 << 20
GREY = "#5f6b76"
COLOURS = ("#0b6fb8", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e", "#a6761d", "#444444", "#17becf", "#c9a800")
VERDICTS = {"PASS": "#1a7f37", "FAIL": "#cf222e"}
UNDECIDED = "#9a6700"


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the server.

    `seconds` since the start, `messages` taken by then, `rate` in messages a second; by the process' name, `memory` is
    its USS in bytes and `lag` how many seconds late its loop was. A process that is not there is left out.
    """

    seconds: float
    messages: int
    rate: float
    memory: Mapping[str, float]
    lag: Mapping[str, float]


def draw(samples: Sequence[Sample], path: str, *, title: str, verdict: str, warm_at: int | None = None) -> list[str]:
    """Write the picture as SVG and as PNG, and return the two paths: `path` with .svg and .png.

    `verdict` is the word to show (PASS, FAIL, INCONCLUSIVE), `warm_at` the number of messages that ended the warm-up.
    ModuleNotFoundError without matplotlib, ValueError without samples, OSError if a file cannot be written.
    """
    if not samples:
        raise ValueError("there are no samples to draw")
    try:
        import matplotlib
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("a plot needs matplotlib: pip install 'gsmtp[soak]'", name=error.name) from error

    # Text as outlines looks the same wherever the SVG is shown; the salt makes its names the same in each run.
    with matplotlib.rc_context({"font.size": 10, "svg.fonttype": "path", "svg.hashsalt": "gsmtp"}):
        figure = Figure(figsize=(9, 6.2), facecolor="white")
        FigureCanvasAgg(figure)
        _compose(figure, samples, title, verdict, warm_at)
        base = Path(path)
        if base.suffix in (".svg", ".png"):
            base = base.with_suffix("")
        paths = [f"{base}.svg", f"{base}.png"]
        figure.savefig(paths[0], metadata={"Date": None})
        figure.savefig(paths[1], dpi=110)
    return paths


def _compose(figure: Figure, samples: Sequence[Sample], title: str, verdict: str, warm_at: int | None) -> None:
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
            axes.plot(*_thinned(samples, values, max, points), color=colour, linewidth=1.4, label=name)
    rate.plot(*_thinned(samples, [sample.rate for sample in samples], fmean, points), color=GREY, linewidth=1.4)
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
        wide = warm_at > end / 10  # enough for the word
        memory.text(
            min(warm_at, end) / 2 if wide else warm_at,
            0.02,
            "warm-up" if wide else " warm-up",
            transform=memory.get_xaxis_transform(),
            horizontalalignment="center" if wide else "left",
            color=GREY,
        )
    memory.legend(loc="lower right", ncols=min(len(names), 4), edgecolor="none")
    lag.set_xlabel(f"messages ({last.messages:,} in {_lasted(last.seconds)})")
    lag.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.align_ylabels([memory, rate, lag])


def _thinned(
    samples: Sequence[Sample], values: Sequence[float], summary: Callable[[list[float]], float], points: int
) -> tuple[list[float], list[float]]:
    """The values over messages, neighbours summed up so that at most `points` are left; gaps stay gaps."""
    size = math.ceil(len(samples) / points)
    xs, ys = [], []
    for first in range(0, len(samples), size):
        known = [value for value in values[first : first + size] if math.isfinite(value)]
        xs.append(fmean(sample.messages for sample in samples[first : first + size]))
        ys.append(summary(known) if known else math.nan)
    return xs, ys


def _lasted(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    return f"{seconds / 3600:.1f} h"
