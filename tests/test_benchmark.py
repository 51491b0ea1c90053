"""scripts/benchmark.py, run as a user runs it: real servers, real smtp-source, and nothing left behind.

Figures are not judged, only that they are there, agree with each other, and are withheld when a server fails.
Servers that fail are small source trees given by `--checkout`, which stand where gsmtp would.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "benchmark.py"
FEW = ["--messages", "60", "--idle", "30", "--rounds", "2"]

needs_postfix = pytest.mark.skipif(
    not (shutil.which("smtp-source") and shutil.which("smtp-sink")),
    reason="smtp-source and smtp-sink are not on PATH (Debian: postfix, in /usr/sbin)",
)
needs_aiosmtpd = pytest.mark.skipif(
    importlib.util.find_spec("aiosmtpd") is None, reason="aiosmtpd is not installed in this interpreter"
)

# A server in place of gsmtp's: `conduct` says what is wrong with it. It serves from a forked child that does
# not care about SIGTERM, as a worker that hangs would.
CLI = """\
import os, pathlib, signal, socketserver, sys, uuid

CONDUCT = "{conduct}"

class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 here\\r\\n")
        for line in self.rfile:
            verb = line[:4].upper().strip()
            if verb == b"DATA":
                if CONDUCT == "die":
                    print("out of cheese", file=sys.stderr, flush=True)
                    os.kill(os.getppid(), signal.SIGKILL)
                    os._exit(1)
                self.wfile.write(b"354 go on\\r\\n")
                for line in self.rfile:
                    if line == b".\\r\\n":
                        break
                if CONDUCT == "store":
                    (MAILDIR / "new" / str(uuid.uuid4())).write_bytes(b"...")
            refuse = CONDUCT == "refuse" and verb == b"EHLO"
            self.wfile.write(b"421 too many\\r\\n" if refuse else b"250 yes\\r\\n")
            if verb == b"QUIT":
                return

if __name__ == "__main__":
    if CONDUCT == "no start":
        sys.exit("first line\\nno such setting: cheese")
    MAILDIR = pathlib.Path(sys.argv[-1].removeprefix("path="))
    if CONDUCT == "store":
        (MAILDIR / "new").mkdir(parents=True)
    address = sys.argv[sys.argv.index("-b") + 1].removeprefix("smtp://").split(":")
    socketserver.TCPServer.request_queue_size = 100
    server = socketserver.ThreadingTCPServer((address[0], int(address[1])), Session)
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.serve_forever()
    signal.pause()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """For the benchmark's files; processes that it starts have their working directory below."""
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], Path]:
    def make(conduct: str) -> Path:
        tree = tmp_path / "tree"
        (tree / "gsmtp").mkdir(parents=True)
        (tree / "gsmtp" / "__init__.py").write_text('__version__ = "9.9"\n')
        (tree / "gsmtp" / "cli.py").write_text(CLI.format(conduct=conduct))
        return tree

    return make


def benchmark(place: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, "--workdir", place, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def left_in(place: Path) -> list[str]:
    """Processes that run below `place`, and files there."""
    found = [str(path) for path in place.iterdir()]
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(place)):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found


@needs_postfix
@needs_aiosmtpd
def test_table_and_json_agree(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    few: list[str | Path] = [
        *FEW,
        "--servers",
        "smtp-sink,aiosmtpd",
        "--workloads",
        "kept,idle",
        "--json",
        out,
    ]
    done = benchmark(place, *few)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 100
    document = json.loads(out.read_text())
    assert set(document["versions"]) == {"smtp-sink", "aiosmtpd"} and not document["unavailable"]
    assert set(document["workloads"]) == {"kept", "idle"}
    for name, figure in [("kept", "rate"), ("idle", "kib_per_session")]:
        sink, peer = document["workloads"][name]["rows"]
        assert (sink["server"], peer["server"]) == ("smtp-sink", "aiosmtpd")
        assert sink["ratios"][figure] == {"median": 1, "lowest": 1, "highest": 1}
        of_rounds = [peer["rounds"][n][figure] / sink["rounds"][n][figure] for n in ("0", "1")]
        assert peer["ratios"][figure]["median"] == pytest.approx(statistics.median(of_rounds))
        assert peer["ratios"][figure]["lowest"] == pytest.approx(min(of_rounds))
        shown = f"{peer['ratios'][figure]['median']:.2f} ({min(of_rounds):.2f}..{max(of_rounds):.2f})"
        assert any(line.startswith("aiosmtpd ") and shown in line for line in done.stdout.splitlines())
    kept = document["workloads"]["kept"]["rows"][1]["rounds"]["0"]
    assert kept["messages"] == 60 and kept["peak_mib"] > 1 and 0 < kept["client_busy"] < 200
    assert document["workloads"]["idle"]["rows"][1]["rounds"]["0"]["sessions"] == 30
    assert left_in(place) == []
    assert len(document["machine"]["creation_us"]) == 2 and min(document["machine"]["creation_us"]) > 0
    assert "making an empty file took" in done.stdout


SLOW = """\
import os, sys, time
sys.path.insert(0, {scripts!r})
import benchmark, bench.report
made, deleted = os.open, []
def slow(*arguments, **named):
    time.sleep(0.0002)
    return made(*arguments, **named)
bench.report.os.open = slow
sys.addaudithook(lambda event, arguments: event in ("os.remove", "os.rmdir") and deleted.append(arguments[0]))
measure = benchmark.measure
def watched(workloads, servers, workdir, options):
    tables = measure(workloads, servers, workdir, options)
    stored = len(list(workdir.glob("maildir-*/new/*"))) + len(list(workdir.glob("maildir-*/maildir/**/new/*")))
    print("KEPT", stored, "DELETED", len(deleted))
    return tables
benchmark.measure = watched
sys.exit(benchmark.main(sys.argv[1:]))
"""


@needs_postfix
def test_nothing_is_deleted_before_the_end_and_slow_creation_is_said(
    place: Path, checkout: Callable[[str], Path], tmp_path: Path
) -> None:
    program, out = tmp_path / "slow.py", tmp_path / "out.json"
    program.write_text(SLOW.format(scripts=str(SCRIPT.parent)))
    servers = ["--servers", "fsync-loop,*@tree-maildir-1", "--checkout", str(checkout("store"))]
    arguments = [*FEW, *servers, "--workloads", "maildir", "--seconds", "0.1", "--json", str(out)]
    command = [sys.executable, str(program), "--workdir", str(place), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "WARNING: files are slow to make" in done.stdout
    _, kept, _, deleted = next(line for line in done.stdout.splitlines() if line.startswith("KEPT")).split()
    loop, server = json.loads(out.read_text())["workloads"]["maildir"]["rows"]
    assert server["failure"] is None and len(loop["rounds"]) == 2
    # 60 messages a round, and 20 to warm up
    assert int(kept) >= 2 * 60 + 20 + 2 and int(deleted) == 0
    assert left_in(place) == []


@needs_postfix
def test_rst_is_one_simple_table_for_each_workload(place: Path) -> None:
    done = benchmark(place, *FEW, "--servers", "smtp-sink", "--workloads", "kept,new", "--rst")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    borders = [line for line in lines if line.startswith("===")]
    assert len(borders) == 6 and borders[0] == borders[1] == borders[2]
    titles = [index for index, line in enumerate(lines) if line and set(line) == {"-"}]
    assert [lines[index - 1].split(":")[0] for index in titles] == ["kept", "new"]
    assert all(len(lines[index]) == len(lines[index - 1]) for index in titles)


def test_without_smtp_source_one_line_says_so(place: Path) -> None:
    done = benchmark(place, "--quick", PATH="")
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "smtp-source" in line and "postfix" in line


def test_what_is_not_there_is_listed_with_its_reason(place: Path, tmp_path: Path) -> None:
    done = benchmark(place, "--list", "--node-dir", tmp_path, PATH="")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.startswith("  ")}
    assert "not on PATH" in rows["smtp-sink"] and "node is not on PATH" in rows["smtp-server"]
    assert {"gsmtp", "gsmtp-maildir-1", "gsmtp-maildir-2", "fsync-loop", "maildir", "idle"} <= set(rows)


def test_an_unknown_name_is_refused(place: Path) -> None:
    done = benchmark(place, "--servers", "sendmail")
    assert done.returncode == 2 and "sendmail" in done.stderr and "smtp-sink" in done.stderr


@needs_postfix
@pytest.mark.parametrize(
    ("conduct", "workload", "said"),
    [
        ("no start", "kept", ["gsmtp@tree failed: did not start", "status 1", "| no such setting: cheese"]),
        ("die", "kept", ["gsmtp@tree failed: smtp-source", "| out of cheese"]),
        ("refuse", "idle", ["gsmtp@tree failed: session", "421 too many"]),
    ],
)
def test_a_server_that_fails_is_reported_and_others_run(
    place: Path, checkout: Callable[[str], Path], conduct: str, workload: str, said: list[str]
) -> None:
    servers: list[str | Path] = ["--servers", "smtp-sink,gsmtp@tree", "--checkout", checkout(conduct)]
    done = benchmark(place, *FEW, *servers, "--workloads", workload)
    assert done.returncode == 1, done.stderr
    for words in said:
        assert words in done.stdout
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("smtp-sink ", "gsmtp@tree "))]
    assert [row[:2] for row in rows if row[0] == "gsmtp@tree"] == [["gsmtp@tree", "failed"]]
    # A few idle sessions can fit into memory that smtp-sink has already.
    assert [workload == "idle" or float(row[1]) > 0 for row in rows if row[0] == "smtp-sink"] == [True]
    assert left_in(place) == []


@needs_postfix
@pytest.mark.parametrize(("conduct", "stored"), [("store", True), ("none", False)])
def test_messages_acknowledged_must_be_stored(
    place: Path, checkout: Callable[[str], Path], conduct: str, stored: bool
) -> None:
    servers: list[str | Path] = ["--servers", "fsync-loop,*-maildir-2", "--checkout", checkout(conduct)]
    done = benchmark(place, *FEW, *servers, "--workloads", "maildir", "--seconds", "0.2")
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if " (" in line or " failed " in line}
    assert "failed" not in rows["fsync-loop"]
    assert ("failed" in rows["gsmtp@tree-maildir-2"]) is not stored
    assert ("60 messages acknowledged, 0 stored" in done.stdout) is not stored
    assert done.returncode == (0 if stored else 1), done.stderr


@needs_postfix
def test_a_child_does_the_work_and_is_counted(place: Path, checkout: Callable[[str], Path], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    servers: list[str | Path] = [
        "--servers",
        "gsmtp@tree",
        "--checkout",
        checkout("none"),
        "--baseline",
        "gsmtp@tree",
    ]
    done = benchmark(place, *servers, "--workloads", "kept", "--messages", "3000", "--rounds", "1", "--json", out)
    assert done.returncode == 0, done.stderr + done.stdout
    (row,) = json.loads(out.read_text())["workloads"]["kept"]["rows"]
    assert row["figures"]["cpu_us"]["median"] >= 10 and row["ratios"]["cpu_us"]["median"] == 1
    assert left_in(place) == []  # the child ignores SIGTERM


@needs_postfix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(
    place: Path, checkout: Callable[[str], Path], number: signal.Signals
) -> None:
    servers: list[str | Path] = [
        "--servers",
        "smtp-sink,gsmtp@tree",
        "--checkout",
        checkout("none"),
        "--workloads",
        "kept",
    ]
    command: list[str | Path] = [
        sys.executable,
        SCRIPT,
        "--workdir",
        place,
        *servers,
        "--seconds",
        "2",
        "--rounds",
        "50",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "round 1" in line:
                break
        time.sleep(0.3)
        assert len(left_in(place)) >= 3  # or the test could not fail
        process.send_signal(number)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130, rest
    assert "interrupted" in rest and "Traceback" not in rest
    assert left_in(place) == []


def test_the_codec_is_compared_over_any_folder_of_mail(place: Path, tmp_path: Path) -> None:
    (tmp_path / "mails" / "below").mkdir(parents=True)
    (tmp_path / "mails" / "below" / "one").write_bytes(b"From: a@b.example\r\nSubject: x\r\n\r\nbody\r\n")
    out = tmp_path / "out.json"
    few: list[str | Path] = ["--mime", "--rounds", "1", "--seconds", "0.1", "--json", out]
    done = benchmark(place, *few, "--corpus", tmp_path / "mails", PATH="")
    assert done.returncode in (0, 1), done.stderr  # a ratio of one round may fall short
    found = json.loads(out.read_text())["mime"]
    assert found["about"]["mails"] == 1 and found["memory"]["held"]
    assert len(found["workloads"]) == 5
    for result in found["workloads"]:
        for name, ratio in result["ratio"].items():
            assert ratio == pytest.approx(result["rate"]["gsmtp"] / result["rate"][name])
            assert f"({ratio:>5.1f} x)" in done.stdout
    (tmp_path / "empty").mkdir()
    assert benchmark(place, "--mime", "--corpus", tmp_path / "empty").returncode == 2
