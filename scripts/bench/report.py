"""Results as a table for a terminal of 100 columns, as RST, as JSON.

All three have the same figures. A ratio is shown as `median (lowest..highest)` over the rounds. This file does not know
how anything was measured.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from .rounds import Row, Spread, Table
from .workloads import Column

NOTES = (
    "us/msg, us/session, us/handshake: processor time of the server's whole process tree, user and system. MiB: "
    "highest sum of USS over the tree (memory of these processes alone), sampled. KiB/session: growth of that sum, "
    "without the kernel's socket buffers. client%: processor use of smtp-source; near 100 it is what bounds "
    "msg/s (in TLS rows: of all processes of our own client). x: median of the ratios within each round, with the "
    "lowest and highest."
)


# ext4 takes 10 to 20 here. It looks at each inode freed in the last minutes before it takes another one, so after
# mass deletions it is some hundreds for a while.
SLOW_CREATION = 100  # microseconds per file
CREATIONS = 200  # files made to find out


def creation_us(directory: Path) -> float:
    """Return the microseconds to make and close an empty file, without sync. `directory` is made, and keeps the files.

    Raises OSError.
    """
    directory.mkdir()
    begin = time.monotonic()
    for number in range(CREATIONS):
        os.close(os.open(directory / str(number), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return (time.monotonic() - begin) / CREATIONS * 1e6


def machine(workdir: Path) -> dict[str, Any]:
    """Return what a reader needs to judge the figures. `creation_us` gets one more entry, taken at the end."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": model or platform.machine(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 2),
        "filesystem": filesystem(workdir),
        "creation_us": [creation_us(workdir / "made-at-the-start")],
    }


def filesystem(path: Path) -> str:
    """Return the type of the filesystem of `path`, such as "ext4"."""
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    resolved = path.resolve()
    return next((mounts[place] for place in (resolved, *resolved.parents) if place in mounts), "unknown")


def head(facts: Mapping[str, Any], versions: Mapping[str, str], unavailable: Mapping[str, str]) -> list[str]:
    """Return lines that say what ran where, and what did not."""
    lines = [
        "{date}, {processor}, {cores} cores, {memory_gib} GiB, {system}, {python}, load {load} at the start, "
        "files on {filesystem}".format(**facts)
    ]
    creations = facts["creation_us"]
    lines.append("making an empty file took " + ", then ".join(f"{took:.0f} us" for took in creations))
    if max(creations) > SLOW_CREATION:
        lines.append(
            f"WARNING: files are slow to make (above {SLOW_CREATION} us), as on ext4 for some minutes after mass "
            "deletions: figures of the maildir workload are too low; wait and run again"
        )
    lines += [f"{name}: {version}" for name, version in versions.items()]
    lines += [f"{name}: NOT RUN, {reason}" for name, reason in unavailable.items()]
    return lines


def cells(table: Table) -> list[list[str]]:
    """Return the heading row, then one row for each entry."""
    baseline = table.baseline_row()
    heading = ["server"]
    for column in table.workload.columns:
        heading += [column.heading, f"x {table.baseline}"] if column.ratio else [column.heading]
    return [heading, *(_row(row, table.workload.columns, baseline) for row in table.rows)]


def _row(row: Row, columns: Sequence[Column], baseline: Row | None) -> list[str]:
    shown = [row.name]
    for column in columns:
        value = None if row.failure else row.figure(column.figure)
        shown.append(f"{value.median:.{column.digits}f}" if value else "-")
        if column.ratio:
            ratio = None if row.failure else row.ratio(column.figure, baseline)
            shown.append(_ratio(ratio) if ratio else "-")
    if row.failure:
        shown[1] = "failed"
    return shown


def _ratio(ratio: Spread) -> str:
    return f"{ratio.median:.2f} ({ratio.lowest:.2f}..{ratio.highest:.2f})"


def text(table: Table) -> list[str]:
    """Return lines for a terminal: the table, and below it why entries have failed."""
    rows = cells(table)
    widths = _widths(rows)
    lines = [f"{table.workload.name}: {table.title}"]
    for row in rows:
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join([first, *others]).rstrip())
    for row_ in table.rows:
        if row_.failure:
            what, *rest = row_.failure.splitlines()
            lines += [f"  {row_.name} failed: {what}", *(f"    | {line}" for line in rest)]
    return lines


def rst(table: Table) -> list[str]:
    """Return an RST simple table under its title, and below it the first line of each failure."""
    rows = cells(table)
    widths = _widths(rows)
    border = "  ".join("=" * width for width in widths)
    title = f"{table.workload.name}: {table.title}"
    lines = [title, "-" * len(title), "", border]
    for index, row in enumerate(rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if index == 0:
            lines.append(border)
    lines += [border, ""]
    failed = [f"- {row.name}: {row.failure.splitlines()[0]}" for row in table.rows if row.failure]
    return [*lines, *failed, ""] if failed else lines


def as_json(table: Table) -> dict[str, Any]:
    """Return every figure with its spread, its ratio, and the samples of each round."""
    baseline = table.baseline_row()
    rows = []
    for row in table.rows:
        names = {} if row.failure else {name: None for figures in row.rounds.values() for name in figures}
        rows.append(
            {
                "server": row.name,
                "failure": row.failure,
                "figures": {name: _spread(row.figure(name)) for name in names},
                "ratios": {name: _spread(row.ratio(name, baseline)) for name in names},
                "rounds": {str(number): dict(figures) for number, figures in row.rounds.items()},
            }
        )
    return {"title": table.title, "baseline": table.baseline, "rows": rows}


def _spread(spread: Spread | None) -> dict[str, float] | None:
    return asdict(spread) if spread else None


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]
