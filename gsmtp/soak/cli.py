"""The command gsmtp-soak: its options, its progress, and its output: a report, a plot, JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gsmtp
from gsmtp.soak import accounts, generator
from gsmtp.soak.conversations import CONVERSATIONS, MIX, NEED_OWN_HANDLER, NEED_TLS
from gsmtp.soak.corpus import Corpus, CorpusError
from gsmtp.soak.harness import OWN_HANDLER, Harness, HarnessConfig, HarnessError
from gsmtp.soak.leaks import LEAKS
from gsmtp.soak.plot import Sample, draw
from gsmtp.soak.report import Report
from gsmtp.soak.run import BURST, RunLength, run_soak
from gsmtp.soak.verdict import Outcome

_STATUS = {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INCONCLUSIVE: 2}
_LINE_INTERVAL = 15.0  # seconds between lines of progress, without a terminal
_MIB = 1 << 20

_EPILOG = """\
examples:
  gsmtp-soak                                   100,000 emails, the verdict, a plot in soak.svg and soak.png
  gsmtp-soak --hours 8 --json soak.json        a night of it
  gsmtp-soak --corpus ~/Maildir                your own mail
  gsmtp-soak --handler inbox:Inbox --recipient anna@example.net
                                               your own handler: is its memory flat?
  gsmtp-soak --emails 30000 --leak object      must FAIL

exit status:  0  PASS        1  FAIL        2  INCONCLUSIVE, or it could not be run
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status. Raises SystemExit for what argparse refuses or answers itself."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kinds = _kinds(options)
    if isinstance(kinds, str):
        return _not_run(kinds)
    corpus = None
    try:
        if options.corpus is not None:
            corpus = Corpus(options.corpus, generator.LARGEST * 7)
        mails = corpus.mails() if corpus else generator.generate(options.seed)
        with tempfile.TemporaryDirectory(prefix="gsmtp-soak-") as directory:
            progress = Progress(options.emails, options.hours * 3600)
            config = HarnessConfig(
                directory=Path(directory),
                mails=mails,
                handler=_handler(options),
                workers=options.workers,
                clients=options.clients,
                threads=options.threads,
                tls=options.tls,
                seed=options.seed,
                sender=options.sender,
                recipient=options.recipient,
                settings={"max_message_size": 0},
            )
            try:
                with Harness(config, progress.show) as harness:
                    progress.say(f"{harness.mails:,} different mails, {options.workers} workers, seed {options.seed}")
                    if corpus and corpus.passed_over:
                        progress.say(f"passed over {len(corpus.passed_over)}, such as {corpus.passed_over[0]}")
                    length = RunLength(options.emails, options.hours * 3600, options.burst)
                    report = run_soak(harness, length, kinds, progress.say)
            finally:
                progress.close()
    except (CorpusError, HarnessError) as error:
        return _not_run(str(error))
    except KeyboardInterrupt:
        return _not_run("interrupted")
    print(report.text())
    _write_outputs(options, report)
    return _STATUS[report.outcome]


def _not_run(why: str) -> int:
    print(f"gsmtp-soak: not run: {why}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gsmtp-soak",
        description="Send a gsmtp-master mail as in life, and show that it loses none and its memory stays flat.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--emails", type=_count, default=100_000, metavar="N", help="how many; default: 100,000")
    add("--hours", type=float, default=0.0, metavar="H", help="go on as long, with as many emails as that takes")
    add("--corpus", type=Path, metavar="DIR", help="replay the mail in this folder: .eml, mbox, Maildir")
    add("--handler", metavar="MODULE:CLASS", help="soak this handler; it must take mail for the --recipient")
    add("-o", "--option", action="append", default=[], metavar="KEY=VALUE", help="for that handler; may be repeated")
    add("--sender", default=accounts.SENDER, metavar="ADDRESS", help=f"default: {accounts.SENDER}")
    add("--recipient", default=accounts.RECIPIENT, metavar="ADDRESS", help=f"default: {accounts.RECIPIENT}")
    add("--no-parse", action="store_true", help="do not decode each message in the callback")
    add(
        "--tls",
        nargs="?",
        const="always",
        default="mixed",
        choices=["never", "mixed", "always"],
        help="how many sessions are under TLS; default: mixed, as in life; --tls alone: always",
    )
    add("--workers", type=_count, default=2, metavar="N", help="of the server; default: 2")
    add("--clients", type=_count, default=4, metavar="N", help="client processes; default: 4")
    add("--threads", type=_count, default=6, metavar="N", help="sessions at a time in each; default: 6")
    add("--seed", type=int, default=0, metavar="N", help="the same seed, the same mail; default: 0")
    add("--only", metavar="A,B", help=f"these conversations alone: {', '.join(CONVERSATIONS)}")
    add("--burst", type=int, default=BURST, metavar="N", help=f"sessions of the burst at the end; default: {BURST:,}")
    add("--leak", choices=sorted(LEAKS), help="plant a leak, to see that it is found")
    add("--json", metavar="FILE", help="write all figures there, - for standard output")
    add("--plot", default="soak", metavar="FILE", help="FILE.svg and FILE.png; default: soak; - for none")
    add("--version", action="version", version=f"gsmtp {gsmtp.__version__}")
    return parser


def _count(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _handler(options: argparse.Namespace) -> dict[str, Any]:
    if options.leak:
        return {"class": f"gsmtp.soak.leaks:{LEAKS[options.leak]}", "parse": not options.no_parse}
    if options.handler is None:
        return {"class": OWN_HANDLER, "parse": not options.no_parse}
    return {"class": options.handler, **dict(each.partition("=")[::2] for each in options.option)}


def _kinds(options: argparse.Namespace) -> dict[str, float] | str:
    """Return the conversations and their weights, or why there are none."""
    kinds = dict(MIX)
    if options.only:
        kinds = dict.fromkeys(options.only.split(","), 1.0)
        if unknown := kinds.keys() - CONVERSATIONS.keys():
            return f"there is no conversation {sorted(unknown)[0]}"
    without = set(NEED_TLS if options.tls == "never" else ())
    if options.handler is not None and not options.leak:
        without |= NEED_OWN_HANDLER
    kinds = {kind: weight for kind, weight in kinds.items() if kind not in without}
    return kinds or f"{options.only} cannot be had with this handler or without TLS"


class Progress:
    """Progress on standard error: a bar on a terminal, else a line every 15 seconds."""

    def __init__(self, messages: int, seconds: float) -> None:
        self._by_time = seconds > 0
        self._total = int(seconds) if self._by_time else messages
        self._next_line = 0.0
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            unit = "s" if self._by_time else " emails"
            self._bar = tqdm(total=self._total, unit=unit, dynamic_ncols=True, smoothing=0.05)

    def show(self, sample: Sample, sessions: int) -> None:
        """Show the progress at a sample, see Sampler."""
        memory = " ".join(f"{uss / _MIB:.1f}" for name, uss in sorted(sample.memory.items()) if name != "master")
        if self._bar is not None:
            done = int(sample.seconds) if self._by_time else sample.messages
            self._bar.total = max(self._total, done)
            self._bar.set_postfix_str(f"{sample.rate:.0f}/s, {memory} MiB, {sessions} sessions", refresh=False)
            self._bar.update(done - self._bar.n)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _LINE_INTERVAL
            self.say(f"{sample.messages:,} emails, {sample.rate:.0f}/s, workers {memory} MiB, {sessions} sessions")

    def say(self, text: str) -> None:
        """Print a line of text."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def _write_outputs(options: argparse.Namespace, report: Report) -> None:
    if options.json == "-":
        print(json.dumps(report.as_json()))
    elif options.json:
        Path(options.json).write_text(json.dumps(report.as_json(), indent=1) + "\n")
    if options.plot == "-" or not report.samples:
        return
    title = f"gsmtp {gsmtp.__version__}: {report.messages:,} emails, {options.workers} workers"
    try:
        paths = draw(report.samples, options.plot, title=title, verdict=report.outcome.value, warm_at=report.warm_at)
    except (ModuleNotFoundError, OSError) as error:
        print(f"gsmtp-soak: no plot: {error}", file=sys.stderr)
    else:
        print(f"plot: {', '.join(map(os.path.relpath, paths))}")


if __name__ == "__main__":
    sys.exit(main())
