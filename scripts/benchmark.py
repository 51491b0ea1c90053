#!/usr/bin/env python3
"""Compare gsmtp with its peers: `scripts/benchmark.py`, or `--quick` for a minute's look, `--list` for what
there is. `--mime` compares gsmtp.mime with the standard library's email package instead, over a folder of mail
(`--corpus`), and needs nothing but this interpreter.

Needs Postfix's smtp-source on PATH (Debian: apt install postfix; as a plain user add /usr/sbin to PATH) and
psutil. Peers run where they are installed: `pip install aiosmtpd uvloop` for this interpreter; Node and `npm
install --prefix DIR smtp-server` with `--node-dir DIR`. Two commits of gsmtp compare in one run with
`--checkout` of a worktree of each, and `--baseline gsmtp` to see ratios to one of them.

Servers run one at a time in interleaved rounds on 127.0.0.1; what is quoted are medians over the rounds, of
ratios taken within a round. Trust the ratios: absolute figures are those of one machine on one day. The exit
status is 0, or 1 when a server failed in a workload (the others are measured all the same) or gsmtp.mime fell short of
what is promised, or 2 when nothing could be run.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from bench import report
from bench.entries import entries
from bench.rounds import Plan, Table, run
from bench.servers import Entry
from bench.workloads import WORKLOADS, RunLength, Workload

WIDTH = 100  # columns of the text
ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "mime" / "fixtures"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    # Not /tmp by default: where that is in memory, fsync costs nothing and the Maildir rows mean nothing.
    scratch = Path("/var/tmp") if os.access("/var/tmp", os.W_OK) else Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(
        description="Compare gsmtp with other SMTP servers, driven by Postfix's smtp-source."
    )
    add = parser.add_argument
    add("--list", action="store_true", help="show servers and workloads, and run nothing")
    add("--servers", metavar="A,B", help="only these; patterns such as 'gsmtp*' are allowed")
    add("--workloads", metavar="A,B", help="only these")
    add(
        "--checkout",
        metavar="DIR",
        type=Path,
        action="append",
        default=[],
        help="also gsmtp from this source tree",
    )
    add("--baseline", metavar="NAME", help="ratios to this server, in workloads that it takes part in")
    add("--rounds", type=int, help="rounds of each workload (default: 5)")
    add("--seconds", type=float, help="length of one run, roughly (default: 3)")
    add(
        "--messages",
        type=int,
        help="in place of --seconds: 4 KB messages in one run (other sizes: as many bytes)",
    )
    add("--idle", type=int, help="sessions of the idle workload (default: 2000)")
    add("--mime", action="store_true", help="gsmtp.mime beside the standard library, in place of servers")
    add(
        "--corpus",
        metavar="DIR",
        type=Path,
        default=FIXTURES,
        help="for --mime: a folder of mail, files of any name (default: the tests' fixtures)",
    )
    add("--quick", action="store_true", help="2 rounds of half a second, 300 idle sessions: figures are rough")
    add("--json", metavar="FILE", type=Path, help="write all figures there")
    add("--rst", action="store_true", help="print RST in place of text")
    add(
        "--node-dir",
        metavar="DIR",
        type=Path,
        default=cache / "gsmtp-benchmark",
        help="where npm put smtp-server",
    )
    add(
        "--workdir",
        metavar="DIR",
        type=Path,
        default=scratch,
        help=f"for files, Maildirs too (default: {scratch})",
    )
    add("--server-cpus", metavar="LIST", help="run servers on these cores only, as taskset -c takes them")
    add("--client-cpus", metavar="LIST", help="run smtp-source on these cores only")
    options = parser.parse_args(arguments)
    quick = options.quick
    options.rounds = options.rounds or (2 if quick else 5)
    options.seconds = options.seconds or (0.5 if quick else 3.0)
    options.idle = options.idle or (300 if quick else 2000)
    if min(options.rounds, options.seconds, options.idle, options.messages or 1) <= 0:
        parser.error("rounds, seconds, messages and idle sessions must be above 0")
    options.checkout = [checkout.resolve() for checkout in options.checkout]
    if len({checkout.name for checkout in options.checkout}) < len(options.checkout):
        parser.error("two checkouts have the same name, so their rows would, too")
    if (options.server_cpus or options.client_cpus) and shutil.which("taskset") is None:
        parser.error("taskset is not on PATH (Debian: util-linux)")
    options.all_servers = entries(options.checkout, options.node_dir.resolve())
    names = [entry.name for entry in options.all_servers]
    options.chosen_servers = _choose(parser, "--servers", options.servers, names)
    options.chosen_workloads = _choose(parser, "--workloads", options.workloads, [each.name for each in WORKLOADS])
    if options.baseline and options.baseline not in names:
        parser.error(f"--baseline: there is no {options.baseline}")
    return options


def _choose(parser: argparse.ArgumentParser, option: str, wanted: str | None, names: Sequence[str]) -> list[str]:
    if wanted is None:
        return list(names)
    patterns = [pattern.strip() for pattern in wanted.split(",") if pattern.strip()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            parser.error(f"{option}: nothing is called {pattern}; there are {', '.join(names)}")
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def show_list(servers: Sequence[Entry]) -> None:
    print("servers")
    for entry in servers:
        reason = entry.available()
        print(f"  {entry.name:24} {','.join(entry.kinds):16} {reason or entry.version()}")
    print("workloads")
    for workload in WORKLOADS:
        print(f"  {workload.name:24} {workload.kind:16} {workload.title}")


def measure(
    workloads: Sequence[Workload], servers: Sequence[Entry], workdir: Path, options: argparse.Namespace
) -> list[Table]:
    """Run `workloads` one by one on the `servers` that take part; progress goes to standard error."""
    length = RunLength(options.seconds, options.messages, options.idle, _pin(options.client_cpus))
    plan = Plan(
        options.rounds,
        length,
        workdir,
        server_prefix=_pin(options.server_cpus),
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    tables = []
    for workload in workloads:
        taking_part = [entry for entry in servers if workload.kind in entry.kinds]
        if taking_part:
            named = options.baseline in [entry.name for entry in taking_part]
            tables.append(run(workload, taking_part, options.baseline if named else workload.baseline, plan))
    return tables


def _pin(cpus: str | None) -> tuple[str, ...]:
    return ("taskset", "-c", cpus) if cpus else ()


def show(tables: Sequence[Table], head: Sequence[str], as_rst: bool) -> None:
    if as_rst:
        print("\n".join(f"- {line}" for line in head), end="\n\n")
        print("\n".join(line for table in tables for line in report.rst(table)))
        print("\n".join(textwrap.wrap(report.NOTES, WIDTH)))
        return
    for line in [*head, ""]:
        print("\n".join(textwrap.wrap(line, WIDTH, subsequent_indent="    ")))
    for table in tables:
        print("\n".join([*report.text(table), ""]))
    print("\n".join(textwrap.wrap(report.NOTES, WIDTH)))


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt once, so that servers are stopped and files deleted, and ignore further signals."""
    _ignore_signals()
    raise KeyboardInterrupt


def _ignore_signals() -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def compare_mime(options: argparse.Namespace) -> int:
    """Run the comparison of this source tree's gsmtp.mime with the standard library."""
    sys.path.insert(0, str(ROOT))
    from bench import mime

    try:
        about, results, kept = mime.run(
            options.corpus, options.corpus != FIXTURES, options.rounds, options.seconds / 15
        )
    except ValueError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    print("\n".join((mime.rst if options.rst else mime.text)(results, kept)))
    if options.json:
        document = {"mime": {"about": about, "workloads": results, "memory": kept}}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(result["held"] for result in results) and kept["held"] else 1


def spread(workdir: Path) -> None:
    """Make each folder in `workdir` begin in a part of the disk where little was deleted, if that is possible.

    ext4 does so for folders within one that has the attribute T; others do not need it.
    """
    if shutil.which("chattr"):
        subprocess.run(["chattr", "+T", workdir], capture_output=True, check=False)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.mime:
        return compare_mime(options)
    if options.list:
        show_list(options.all_servers)
        return 0
    if shutil.which("smtp-source") is None:
        print("benchmark: smtp-source is not on PATH: install postfix (Debian: /usr/sbin)", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    chosen = [entry for entry in options.all_servers if entry.name in options.chosen_servers]
    workloads = [workload for workload in WORKLOADS if workload.name in options.chosen_workloads]
    unavailable = {entry.name: reason for entry in chosen if (reason := entry.available())}
    servers = [entry for entry in chosen if entry.name not in unavailable]
    versions = {entry.name: entry.version() for entry in servers}
    try:
        with tempfile.TemporaryDirectory(prefix="gsmtp-benchmark-", dir=options.workdir) as directory:
            workdir = Path(directory)
            workdir.chmod(0o755)  # a server that drops its privileges must reach its files
            spread(workdir)
            facts = report.machine(workdir)
            tables = measure(workloads, servers, workdir, options)
            facts["creation_us"].append(report.creation_us(workdir / "made-at-the-end"))
            _ignore_signals()  # what is on disk is deleted only now, and all of it
    except KeyboardInterrupt:
        print("benchmark: interrupted; the servers were stopped", file=sys.stderr)
        return 130
    show(tables, report.head(facts, versions, unavailable), options.rst)
    if options.json:
        document: dict[str, Any] = {
            "machine": facts,
            "options": {name: getattr(options, name) for name in ("rounds", "seconds", "messages", "idle")},
            "versions": versions,
            "unavailable": unavailable,
            "workloads": {table.workload.name: report.as_json(table) for table in tables},
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if not any(row.rounds for table in tables for row in table.rows):
        return 2
    return 1 if any(row.failure for table in tables for row in table.rows) else 0


if __name__ == "__main__":
    sys.exit(main())
