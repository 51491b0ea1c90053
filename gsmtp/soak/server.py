"""The server under soak: a gsmtp-master in processes of its own, as anybody would start it.

Promises: when `close` returns, nothing of it is left. Its log is read and emptied while it runs; what is at fault
there, and was not planted, is kept.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

_START = 30.0  # seconds to the first worker: a cold start of an interpreter on a busy machine takes a few
_STOP = 20.0
_LISTENING = re.compile(r'listening on ([^"\s]+) \(([^)]+)\)')
_FAULT = re.compile(r" level=(?:error|critical|warning)\b")
_PLANTED = ("gsmtp.soak.handler.Planted", "hook failed at its deadline")
_KEPT = 20


class ServerFailed(Exception):
    """The server did not start, or ended; what it said."""


class Server:
    """One run. `directory` has its settings and log, and is where the handler's instruments write."""

    def __init__(
        self, directory: Path, handler: Mapping[str, Any], workers: int, tls: bool, settings: Mapping[str, Any]
    ) -> None:
        """`handler`: the class that is soaked, and its options. Raises ServerFailed."""
        self.directory = directory
        self._log = directory / "log"
        self._log.touch()
        self.faults: list[str] = []
        self.fault_count = 0
        binds = ["smtp://127.0.0.1:0"]
        if tls:
            make_certificate(directory)
            binds.append("smtps://127.0.0.1:0")
        config = directory / "gsmtp.toml"
        config.write_text(_toml(handler, directory, workers, tls, binds, settings))
        with (directory / "output").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gsmtp.cli", "-c", str(config), "--log-file", str(self._log)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._until_ready(workers)
        except BaseException:
            self.close()
            raise

    def _until_ready(self, workers: int) -> None:
        deadline = time.monotonic() + _START
        while len(self.gauges()) < workers or "listening" not in (log := self._log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / "output").read_text(errors="replace") + self._log.read_text(errors="replace")
                raise ServerFailed(f"the server did not start:\n{said.strip()}")
            time.sleep(0.02)
        found = _LISTENING.findall(log)
        self.addresses: dict[str, tuple[str, int]] = {}
        for bind, address in found:
            host, _, port = address.rpartition(":")
            self.addresses[bind.partition(":")[0]] = host, int(port)

    def gauges(self) -> dict[int, Path]:
        """pid -> the socket of its instruments, of the workers that live."""
        workers = {child.pid for child in psutil.Process(self.process.pid).children()} if self.alive else set()
        return {int(path.stem): path for path in self.directory.glob("*.gauge") if int(path.stem) in workers}

    def journals(self) -> list[Path]:
        """Of all workers that there ever were."""
        return sorted(self.directory.glob("*.journal"))

    @property
    def alive(self) -> bool:
        """Whether the master runs."""
        return self.process.poll() is None

    def read_log(self) -> None:
        """Take what is at fault from the log, and empty it."""
        fault: list[str] = []
        with self._log.open(errors="replace") as file:
            for line in file:
                if line.startswith(" "):
                    if fault:
                        fault.append(line)
                    continue
                self._judge(fault)
                fault = [line] if _FAULT.search(line) else []
        self._judge(fault)
        os.truncate(self._log, 0)

    def _judge(self, fault: list[str]) -> None:
        text = "".join(fault)
        if fault and not any(each in text for each in _PLANTED):
            self.fault_count += 1
            if len(self.faults) < _KEPT:
                self.faults.append(text.rstrip())

    def stop(self) -> int:
        """TERM; the exit status. ServerFailed when it does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server did not end within {_STOP:.0f} s of TERM") from None

    def close(self) -> None:
        """End it if it runs."""
        left = self._processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.process.kill()
        self.process.wait()

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if os.getsid(pid) == self.process.pid:
                    found.append(psutil.Process(pid))
        return found


def _toml(
    handler: Mapping[str, Any],
    directory: Path,
    workers: int,
    tls: bool,
    binds: list[str],
    settings: Mapping[str, Any],
) -> str:
    # Here a few addresses guess passwords by the thousand: no second for each, and never too many.
    table = {"workers": workers, "hostname": "soak.example", "auth_failure_delay": 0.1, "limit_auth_failures": 1 << 40}
    if tls:
        table |= {"certfile": str(directory / "certificate.pem"), "keyfile": str(directory / "key.pem")}
    lines = [f"{key} = {_value(value)}" for key, value in {**table, **settings}.items()]
    options = {"soak_class": handler["class"], "soak_directory": str(directory)}
    options |= {key: value for key, value in handler.items() if key != "class"}
    lines += ["[handler]", 'class = "gsmtp.soak.handler:Soaked"']
    lines += [f"{key} = {_value(value)}" for key, value in options.items()]
    for bind in binds:
        lines += ["[[listen]]", f"bind = {_value(bind)}"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def make_certificate(directory: Path) -> None:
    """certificate.pem and key.pem there: self-signed, P-256, for thirty days."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "soak.example")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (directory / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
