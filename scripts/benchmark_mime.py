"""How fast gsmtp.mime is beside the standard library: `python scripts/benchmark_mime.py [--corpus FOLDER]`.

Every workload asks the same questions of each implementation. The implementations take turns within a round,
and the figures are medians over the rounds of processor time, so a busy machine bends all of them alike;
trust the ratios. It prints a table, and with --json writes the figures, with what they were measured on.
Without a corpus folder mail is generated. Weak: one process, one machine, and a corpus of someone's choice.
"""

from __future__ import annotations

import argparse
import email
import email.header
import email.message
import email.policy
import email.utils
import gc
import importlib.util
import json
import os
import platform
import random
import statistics
import sys
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
    """One line of the table: what is done by each implementation, how often in a round, and what ratios are
    promised.
    """

    name: str
    work: dict[str, Work]
    unit: str
    count: int = 1  # what one call does, in units
    promised: dict[str, float] = field(default_factory=dict)  # implementation -> at least so many times faster


def ask_ours(raw: bytes) -> None:
    message = mime.decode(raw)
    _ = message.subject, message.from_, message.date
    for part in message.walk():
        __ = part.content_type, part.filename, part.content if not part.parts else b""


def ask_compat32(raw: bytes) -> None:
    message = email.message_from_bytes(raw)
    try:
        str(email.header.make_header(email.header.decode_header(message["Subject"] or "")))
        email.utils.parseaddr(message["From"] or "")
        email.utils.parsedate_to_datetime(message["Date"] or "")
    except Exception:  # what it cannot read costs it nothing more
        pass
    ask_stdlib_parts(message)


def ask_default(raw: bytes) -> None:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    try:
        _ = message["Subject"], message["From"].addresses, message["Date"].datetime
    except Exception:
        pass
    ask_stdlib_parts(message)


def ask_stdlib_parts(message: email.message.Message[Any, Any]) -> None:
    for part in message.walk():
        try:
            part.get_content_type()
            part.get_filename()
            if not part.is_multipart():
                part.get_payload(decode=True)
        except Exception:
            continue


def generated(count: int = 200) -> list[bytes]:
    """Mail of the usual kinds, from a fixed seed."""
    rng = random.Random(1)
    words = [
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "the",
        "lazy",
        "dog",
        "grüße",
        "aus",
        "köln",
        "日本",
    ]
    mails = []
    for number in range(count):
        text = " ".join(rng.choices(words, k=rng.randint(20, 300)))
        kind = number % 4
        message = mime.Message.build(
            from_="Jörg Sender <sender@example.com>",
            to=[f"Recipient {n} <r{n}@example.org>" for n in range(rng.randint(1, 5))],
            subject=" ".join(rng.choices(words, k=8)),
            text=text,
            html=f"<p>{text}</p>" if kind else None,
            attachments=[("anhang ü.pdf", rng.randbytes(20_000))] if kind > 1 else [],
            headers=[("Received", f"from a.example by b.example; {number}")] * 5,
        )
        mails.append(mime.encode(message))
    return mails


def corpus(folder: Path) -> list[bytes]:
    """The files of a folder of mail; those above 300 KB have workloads of their own."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 300_000)
    return [path.read_bytes() for path in files]


def decode_all(mails: Sequence[bytes], ask: Callable[[bytes], None]) -> Work:
    def work() -> None:
        for raw in mails:
            ask(raw)

    return work


def workloads(mails: Sequence[bytes], source: str) -> list[Workload]:
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
            f"decode {source}",
            {
                "gsmtp": decode_all(mails, ask_ours),
                "compat32": decode_all(mails, ask_compat32),
                "default": decode_all(mails, ask_default),
            },
            "mails/s",
            len(mails),
            {"compat32": 3, "default": 20} if source == "a corpus" else {"compat32": 3, "default": 12},
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
    """Processor seconds of one call, over as many calls as take `at_least` seconds."""
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


def memory(rounds: int = 3) -> dict[str, Any]:
    """The most that decoding a 7 MB mail and taking its content needs above the mail itself, in sizes of the
    mail.
    """
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


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 when a promise was not held."""
    parser = argparse.ArgumentParser(description="gsmtp.mime beside the standard library")
    parser.add_argument("--corpus", default=os.environ.get("GSMTP_CORPUS"), help="a folder of mail (GSMTP_CORPUS)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="processor time per workload, turn and round")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    options = parser.parse_args(argv)
    if options.corpus:
        mails, source = corpus(Path(options.corpus)), "a corpus"
    else:
        mails, source = generated(), "generated mail"
    if not mails:
        parser.error(f"no mail in {options.corpus}")
    results = [measure(workload, options.rounds, options.seconds) for workload in workloads(mails, source)]
    kept = memory()
    print(f"{'':28} {'gsmtp':>12} {'compat32':>20} {'default':>20}")
    for result in results:
        cells = [f"{result['name']:28} {result['rate']['gsmtp']:>12,.1f}"]
        for name in ("compat32", "default"):
            if name in result["rate"]:
                cells.append(f"{result['rate'][name]:>10,.1f} ({result['ratio'][name]:>5.1f} x)")
            else:
                cells.append(f"{'':20}")
        print(" ".join(cells), "" if result["held"] else "  below what is promised")
    print(f"{kept['name']:28}", ", ".join(f"{name} {peak:.2f} x" for name, peak in kept["peak"].items()))
    if options.json:
        about = {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "processors": os.cpu_count(),
            "pybase64": importlib.util.find_spec("pybase64") is not None,
            "mails": len(mails),
            "bytes": sum(map(len, mails)),
            "rounds": options.rounds,
        }
        options.json.write_text(json.dumps({"about": about, "results": results, "memory": kept}, indent=1) + "\n")
    return 0 if all(result["held"] for result in results) and kept["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
