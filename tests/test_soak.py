"""The soak: a hundred thousand emails, the controls, and what may happen to a session one by one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.master import PYTHONPATH
from harness.soak import in_order, soaked

from gsmtp.soak import mailbag
from gsmtp.soak.leaks import LEAKS
from gsmtp.soak.stage import Setup, Stage
from gsmtp.soak.traffic import CONVERSATIONS, MIX
from gsmtp.soak.verdict import TOLERANCES, Outcome, judge


def run_soak(directory: Path, *arguments: str, patience: float = 120) -> subprocess.CompletedProcess[str]:
    """gsmtp-soak, leaving what it leaves in `directory`."""
    return subprocess.run(
        [sys.executable, "-m", "gsmtp.soak.cli", "--json", "soak.json", *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=patience,
        check=False,
    )


@pytest.mark.soak
def test_a_hundred_thousand_emails_and_flat_memory(tmp_path: Path) -> None:
    done = run_soak(tmp_path, "--emails", "100000", patience=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["messages"] >= 100_000
    assert set(found["verdicts"]) == {"worker 0", "worker 1", "master"}
    assert {each["measure"] for each in found["verdicts"]["worker 0"]} == set(TOLERANCES)
    assert (tmp_path / "soak.svg").stat().st_size and (tmp_path / "soak.png").stat().st_size


def test_the_command_leaves_a_report_a_plot_and_figures(tmp_path: Path) -> None:
    done = run_soak(tmp_path, "--emails", "300", "--workers", "1", "--clients", "2", "--burst", "60", "--plot", "few")
    found = json.loads((tmp_path / "soak.json").read_text())
    assert found["messages"] >= 300
    assert found["burst"].keys() == {"worker 0"}
    # So few emails may leave the verdict on memory open, but nothing else.
    status = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 2}
    assert done.returncode == status[found["outcome"]]
    assert done.stdout.rstrip().split("\n")[-2] == found["outcome"]
    assert "0 lost, 0 doubled, 0 damaged" in done.stdout
    assert all(reason.startswith(("worker 0: ", "3")) for reason in found["reasons"])
    assert "emails, " in done.stderr and "MiB" in done.stderr  # no terminal: lines in place of a bar
    assert (tmp_path / "few.svg").exists() and (tmp_path / "few.png").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--corpus", "nowhere"], "nowhere is no directory"),
        (["--only", "smalltalk"], "there is no conversation smalltalk"),
        (["--only", "auth", "--tls", "never"], "cannot be had"),
        (["--handler", "nosuchmodule:Inbox"], "nosuchmodule"),
    ],
)
def test_what_cannot_be_run_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = run_soak(tmp_path, "--emails", "100", *arguments)
    assert done.returncode == 2
    assert "not run: " in done.stderr and said in done.stderr
    assert not list(tmp_path.iterdir())


# Controls


@pytest.mark.parametrize(
    ("leak", "measure"), [("object", "blocks"), ("descriptor", "descriptors"), ("greenlet", "greenlets")]
)
def test_a_planted_leak_is_caught(tmp_path: Path, leak: str, measure: str) -> None:
    handler = {"class": f"gsmtp.soak.leaks:{LEAKS[leak]}"}
    with Stage(Setup(tmp_path, mailbag.mails(0, 40, 0), handler, workers=1, clients=2)) as stage:
        stage.window({"plain": 1}, sessions=300)
        verdict = soaked(stage, {"plain": 1}, 100, TOLERANCES)
        in_order(stage)
    found = {each.measure: each for each in verdict.judgements}
    assert verdict.outcome is Outcome.FAIL
    assert found[measure].outcome is Outcome.FAIL
    assert 0.9 < found[measure].slope < (2 if measure == "blocks" else 1.1)
    others = {"descriptors", "greenlets", "threads", "watchers"} - {measure}
    assert {found[name].outcome for name in others} == {Outcome.PASS}


# Scenarios, one by one, on one server

SESSIONS = {"large": 6, "hook_deadline": 24, "kept": 24, "pipelining": 40}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    setup = Setup(
        tmp_path_factory.mktemp("scenarios"),
        mailbag.mails(0, 100, 2),
        workers=1,
        clients=2,
        threads=12,
        settings={"hook_timeout": 0.2},
    )
    with Stage(setup) as stage:
        for _ in range(4):
            stage.window(MIX, sessions=300)
        yield stage
        stage.finish()
        in_order(stage)


@pytest.mark.parametrize("kind", CONVERSATIONS)
def test_nothing_is_left_of_a_session(stage: Stage, kind: str) -> None:
    sessions = SESSIONS.get(kind, 48)
    verdict = soaked(stage, {kind: 1}, sessions)
    in_order(stage)
    assert verdict.outcome is Outcome.PASS, verdict.text()


def test_the_largest_mail_has_five_megabytes(stage: Stage) -> None:
    before = stage.balance.stored
    assert stage.window({"large": 1}, sessions=4) == 4
    assert stage.balance.stored == before + 4
    assert stage.largest_mail == pytest.approx(5_000_000, rel=0.02)


def test_a_burst_leaves_little(stage: Stage) -> None:
    ((before, after),) = stage.burst(300).values()
    assert after - before < 8 << 20
    in_order(stage)


def test_drains_lose_nothing_and_leave_the_master_as_it_was(tmp_path: Path) -> None:
    with Stage(Setup(tmp_path, mailbag.mails(0, 100, 0), clients=2)) as stage:
        stage.window(MIX, sessions=100)
        first = len(stage.master)
        for _ in range(10):
            stage.window({"kept": 3, "plain": 1, "starttls": 1}, sessions=60, ends=min(stage.server.gauges()))
        verdict = judge(stage.master[first:], tolerances={"descriptors": 0, "threads": 0, "uss": 4096})
        assert stage.balance.whole, stage.balance.named
        # A client that is told to come again was told so: none found the connection broken.
        assert all("421 4.3.2" in trouble for trouble in stage.troubles), stage.troubles
        assert stage.balance.stored > 1000
        assert not stage.server.faults
        assert verdict.outcome is Outcome.PASS, verdict.text()


def test_certificates_reloaded_leave_nothing() -> None:
    pytest.skip("there is no reload of certificates yet")
