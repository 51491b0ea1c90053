"""Compares gsmtp.mime with the standard library: what `scripts/benchmark.py --mime` runs.

Every workload asks the same of each implementation: every header field decoded, addresses and dates parsed, every
part's type, file name, and text or bytes. The implementations take turns within a round, and the figures are medians
over the rounds of processor time, so a busy machine affects all alike; trust the ratios. Weaknesses: it is one process
on one machine, and the mail is a folder that someone has chosen.
"""

from __future__ import annotations

import email
import email.header
import email.message
import email.policy
import email.utils
import gc
import importlib.util
import os
import platform
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsmtp import mime

Work = Callable[[], object]


@dataclass
class Workload:
    """One line of the table: what each implementation does, how often in a round, and the ratios that are promised."""

    name: str
    work: dict[str, Work]
    unit: str
    count: int = 1  # what one call does, in units
    promised: dict[str, float] = field(default_factory=dict)  # implementation -> at least so many times faster


ADDRESSES = ("From", "To", "Cc")


def ask_ours(raw: bytes) -> object:
    """Decode every header field, addresses, date, and every part's type, file name, and text or bytes."""
    message = mime.decode(raw)
    found: list[object] = [list(message.headers.items()), [message.addresses(name) for name in ADDRESSES], message.date]
    for part in message.walk():
        found += [part.content_type, part.filename]
        if not part.parts and part.message is None:
            found.append(part.text if part.content_type.startswith("text/") else part.content)
    return found


def ask_compat32(raw: bytes) -> object:
    """Do the same, with what a program under compat32 calls for it."""
    message = email.message_from_bytes(raw)
    found: list[object] = []
    for name, value in message.items():
        found += [name, answer(lambda value=value: str(email.header.make_header(email.header.decode_header(value))))]  # type: ignore[misc]
    for name in ADDRESSES:
        found.append(answer(lambda name=name: _named(email.utils.getaddresses(message.get_all(name, [])[:1]))))  # type: ignore[misc]
    found.append(answer(lambda: email.utils.parsedate_to_datetime(message["Date"])))
    return found + stdlib_parts(message)


def _named(addresses: list[tuple[str, str]]) -> list[tuple[str, str]]:
    decode_header, make_header = email.header.decode_header, email.header.make_header
    return [(str(make_header(decode_header(name))), addr) for name, addr in addresses]


def ask_default(raw: bytes) -> object:
    """Do the same, with what a program under policy.default calls for it."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    found: list[object] = [answer(lambda: [(name, str(value)) for name, value in message.items()])]
    for name in ADDRESSES:
        found.append(
            answer(lambda name=name: [(each.display_name, each.addr_spec) for each in message[name].addresses])  # type: ignore[misc]
        )
    found.append(answer(lambda: message["Date"].datetime))
    return found + stdlib_parts(message)


def answer(ask: Callable[[], object]) -> object:
    """Return the answer, or nothing if it raises: what an implementation cannot read costs it nothing more."""
    try:
        return ask()
    except Exception:
        return None


def stdlib_parts(message: email.message.Message[Any, Any]) -> list[object]:
    found: list[object] = []
    for part in message.walk():
        found += [answer(part.get_content_type), answer(part.get_filename)]
        if not part.is_multipart():
            found.append(answer(lambda part=part: _content(part)))  # type: ignore[misc]
    return found


def _content(part: email.message.Message[Any, Any]) -> str | bytes | None:
    payload = part.get_payload(decode=True)
    if part.get_content_maintype() == "text" and isinstance(payload, bytes):
        return payload.decode(part.get_content_charset("ascii"), "replace")
    return payload if isinstance(payload, bytes) else None


def corpus(folder: Path) -> list[bytes]:
    """Return the content of every file below a folder of mail. Raises OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [path.read_bytes() for path in files]


def decode_all(mails: Sequence[bytes], ask: Callable[[bytes], object]) -> Work:
    def work() -> None:
        for raw in mails:
            ask(raw)

    return work


def workloads(mails: Sequence[bytes], promise: bool) -> list[Workload]:
    attachment = random.Random(2).randbytes(5_000_000)
    built = mime.Message.build(
        from_="a@example.com",
        to="b@example.org",
        subject="big",
        text="see",
        attachments=[("big.bin", attachment)],
    )
    big = mime.encode(built)

    def with_stdlib() -> bytes:
        message = email.message.EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.org", "big"
        message.set_content("see\n")
        message.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="big.bin")
        return message.as_bytes(policy=email.policy.SMTP)

    def with_ours() -> bytes:
        message = mime.Message.build(
            from_="a@example.com", to="b@example.org", subject="big", text="see",
            attachments=[("big.bin", attachment)],
        )  # fmt: skip
        return mime.encode(message)

    small = (
        b"Received: from a.example by b.example; Tue, 2 Jan 2024 03:04:05 +0000\r\n"
        b"From: Ann <ann@example.com>\r\nTo: bob@example.org\r\nSubject: Lunch\r\n"
        b"Date: Tue, 2 Jan 2024 03:04:05 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        + "Hällo Bob,\r\nshall we?\r\n".encode()
        * 10
    )

    def text_of(message: email.message.Message[Any, Any]) -> object:
        payload = message.get_payload(decode=True)
        return message["Subject"], payload.decode("utf-8") if isinstance(payload, bytes) else None

    def small_ours() -> object:
        message = mime.decode(small)
        return message.subject, message.text

    return [
        Workload(
            f"decode {len(mails)} mails",
            {
                "gsmtp": decode_all(mails, ask_ours),
                "compat32": decode_all(mails, ask_compat32),
                "default": decode_all(mails, ask_default),
            },
            "mails/s",
            len(mails),
            {"compat32": 3, "default": 20} if promise else {},
        ),
        Workload(
            "small text",
            {
                "gsmtp": small_ours,
                "compat32": lambda: text_of(email.message_from_bytes(small)),
                "default": lambda: text_of(email.message_from_bytes(small, policy=email.policy.default)),
            },
            "mails/s",
            promised={"compat32": 2.5},
        ),
        Workload(
            "headers of a 7 MB mail",
            {
                "gsmtp": lambda: mime.decode(big).subject,
                "compat32": lambda: email.message_from_bytes(big)["Subject"],
                "default": lambda: email.message_from_bytes(big, policy=email.policy.default)["Subject"],
            },
            "mails/s",
            promised={"compat32": 300},
        ),
        Workload(
            "decode a 5 MB attachment",
            {
                "gsmtp": lambda: mime.decode(big).attachments[0].content,
                "compat32": lambda: ask_compat32(big),
                "default": lambda: ask_default(big),
            },
            "mails/s",
            promised={"compat32": 4},
        ),
        Workload(
            "encode a 5 MB attachment",
            {"gsmtp": with_ours, "default": with_stdlib},
            "mails/s",
            promised={"default": 3},
        ),
    ]


def once(work: Work, at_least: float) -> float:
    """Return the processor seconds of one call, taken over as many calls as last `at_least` seconds."""
    calls = 0
    begin = time.process_time()
    while True:
        work()
        calls += 1
        spent = time.process_time() - begin
        if spent >= at_least:
            return spent / calls


def measure(workload: Workload, rounds: int, at_least: float) -> dict[str, Any]:
    samples: dict[str, list[float]] = {name: [] for name in workload.work}
    for work in workload.work.values():
        work()
    for _ in range(rounds):
        for name, work in workload.work.items():
            gc.collect()
            samples[name].append(once(work, at_least))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    ratios = {
        name: statistics.median(theirs / ours for theirs, ours in zip(values, samples["gsmtp"], strict=True))
        for name, values in samples.items()
        if name != "gsmtp"
    }
    return {
        "name": workload.name,
        "unit": workload.unit,
        "rate": {name: workload.count / value for name, value in medians.items()},
        "ratio": ratios,
        "promised": workload.promised,
        "held": all(ratios[name] >= ratio for name, ratio in workload.promised.items()),
    }


def memory(rounds: int = 1) -> dict[str, Any]:
    """Return the memory that decoding a 7 MB mail and reading its content needs beside it, in sizes of the mail."""
    attachment = random.Random(2).randbytes(5_200_000)
    raw = mime.encode(mime.Message.build(from_="a@example.com", text="see", attachments=[("big.bin", attachment)]))
    peaks: dict[str, list[float]] = {"gsmtp": [], "gsmtp, open()": [], "default": []}

    def stream() -> None:
        with mime.decode(raw).attachments[0].open() as source:
            while source.read(65536):
                pass

    works: dict[str, Work] = {
        "gsmtp": lambda: [part.content for part in mime.decode(raw).walk() if not part.parts],
        "gsmtp, open()": stream,
        "default": lambda: ask_default(raw),
    }
    for _ in range(rounds):
        for name, work in works.items():
            gc.collect()
            tracemalloc.start()
            work()
            peaks[name].append(tracemalloc.get_traced_memory()[1] / len(raw))
            tracemalloc.stop()
    found = {name: statistics.median(values) for name, values in peaks.items()}
    return {
        "name": "memory above a 7 MB mail",
        "unit": "x its size",
        "peak": found,
        "held": found["gsmtp"] <= 2,
    }


def text(results: Sequence[dict[str, Any]], kept: dict[str, Any]) -> list[str]:
    """Return the table for a terminal: units per second, and in brackets how many times faster gsmtp.mime is."""
    lines = [f"{'mime':28} {'gsmtp':>12} {'compat32':>20} {'policy.default':>20}"]
    for result in results:
        cells = [f"{result['name']:28} {result['rate']['gsmtp']:>12,.1f}"]
        for name in ("compat32", "default"):
            if name in result["rate"]:
                cells.append(f"{result['rate'][name]:>10,.1f} ({result['ratio'][name]:>5.1f} x)".rjust(20))
            else:
                cells.append(f"{'':20}")
        lines.append(" ".join(cells).rstrip() + ("" if result["held"] else "  below what is promised"))
    peaks = ", ".join(f"{name} {peak:.2f} x" for name, peak in kept["peak"].items())
    lines.append(f"{kept['name']:28} {peaks}" + ("" if kept["held"] else "  above what is promised"))
    return lines


def rst(results: Sequence[dict[str, Any]], kept: dict[str, Any]) -> list[str]:
    """Return the same as an RST simple table."""
    border = " ".join(["=" * 28, "=" * 12, "=" * 24, "=" * 24])
    lines = [border, f"{'mails/s':28} {'gsmtp':12} {'compat32':24} policy.default", border]
    for result in results:
        cells = [f"{result['rate'][name]:,.0f} ({result['ratio'][name]:,.1f} x)" if name in result["rate"] else ""
                 for name in ("compat32", "default")]  # fmt: skip
        lines.append(f"{result['name']:28} {result['rate']['gsmtp']:<12,.0f} {cells[0]:24} {cells[1]}".rstrip())
    peaks = ", ".join(f"{name} {peak:.2f} x" for name, peak in kept["peak"].items())
    return [*lines, border, "", f"{kept['name']}: {peaks}."]


def run(
    folder: Path, promise: bool, rounds: int, seconds: float
) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]:
    """Return what it was measured on, a result for each workload, and the memory.

    `promise` says that the folder holds mail as people send it, for which a ratio is promised: mail of a few lines,
    each broken, costs mostly the start. Raises ValueError for a folder without mail, OSError for one that cannot be
    read.
    """
    mails = corpus(folder)
    if not mails:
        raise ValueError(f"no mail in {folder}")
    results = [measure(workload, rounds, seconds) for workload in workloads(mails, promise)]
    about = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "pybase64": importlib.util.find_spec("pybase64") is not None,
        "mails": len(mails),
        "bytes": sum(map(len, mails)),
        "rounds": rounds,
    }
    return about, results, memory()
