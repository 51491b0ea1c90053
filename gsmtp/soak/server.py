"""The server under test: a gsmtp-master in processes of its own, started as a user would start it.

When `close` returns, no process of it is left. Its log is read and emptied while it runs; warnings and errors that the
soak has not caused on purpose are kept.
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

_START_TIMEOUT = 30.0  # seconds: a cold start of an interpreter on a busy machine takes a few
_STOP_TIMEOUT = 20.0
_LISTENING = re.compile(r'listening on ([^"\s]+) \(([^)]+)\)')
_ERROR = re.compile(r" level=(?:error|critical|warning)\b")
_EXPECTED = ("gsmtp.soak.handler.PlantedError", "hook failed at its deadline")
_KEPT = 20  # log errors that are kept whole


class ServerFailed(Exception):
    """The server did not start or did not end. The text has what it wrote."""


class Server:
    """One run of the server. `addresses` has the address of each listener by its scheme."""

    def __init__(
        self, directory: Path, handler: Mapping[str, Any], workers: int, tls: bool, settings: Mapping[str, Any]
    ) -> None:
        """Start the server and wait until all workers serve. Raises OSError, ServerFailed.

        `directory` gets its settings, its log and the files of the handler's instruments. `handler` has the class
        under test as "class", and its options.
        """
        self.directory = directory
        self._log = directory / "log"
        self._log.touch()
        self.log_errors: list[str] = []
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
        deadline = time.monotonic() + _START_TIMEOUT
        while len(self.probe_paths()) < workers or "listening" not in (log := self._log.read_text(errors="replace")):
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = (self.directory / "output").read_text(errors="replace") + self._log.read_text(errors="replace")
                raise ServerFailed(f"the server did not start:\n{output.strip()}")
            time.sleep(0.02)
        found = _LISTENING.findall(log)
        self.addresses: dict[str, tuple[str, int]] = {}
        for bind, address in found:
            host, _, port = address.rpartition(":")
            self.addresses[bind.partition(":")[0]] = host, int(port)

    def probe_paths(self) -> dict[int, Path]:
        """Return the path of the instruments' socket by pid, for each live worker."""
        workers = {child.pid for child in psutil.Process(self.process.pid).children()} if self.alive else set()
        return {int(path.stem): path for path in self.directory.glob("*.probe") if int(path.stem) in workers}

    def accepted_logs(self) -> list[Path]:
        """Return the logs of accepted messages of all workers, also of those that have ended."""
        return sorted(self.directory.glob("*.accepted"))

    @property
    def alive(self) -> bool:
        """Whether the master runs."""
        return self.process.poll() is None

    def read_log(self) -> None:
        """Record the errors in the log, and empty it. Raises OSError."""
        error: list[str] = []
        with self._log.open(errors="replace") as file:
            for line in file:
                if line.startswith(" "):
                    if error:
                        error.append(line)
                    continue
                self._record_error(error)
                error = [line] if _ERROR.search(line) else []
        self._record_error(error)
        os.truncate(self._log, 0)

    def _record_error(self, error: list[str]) -> None:
        text = "".join(error)
        expected = any(each in text for each in _EXPECTED)
        if error and not expected and len(self.log_errors) < _KEPT:
            self.log_errors.append(text.rstrip())

    def stop(self) -> int:
        """Send SIGTERM and return the exit status. Raises ServerFailed when the server does not end."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server did not end within {_STOP_TIMEOUT:.0f} s of TERM") from None

    def close(self) -> None:
        """Kill all its processes that run."""
        for process in self._processes():
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
    # A few addresses guess thousands of passwords: the delay of each is short, and no number of them is too many.
    table = {"workers": workers, "hostname": "soak.example", "auth_failure_delay": 0.1, "limit_auth_failures": 1 << 40}
    if tls:
        table |= {"certfile": str(directory / "certificate.pem"), "keyfile": str(directory / "key.pem")}
    lines = [f"{key} = {_value(value)}" for key, value in {**table, **settings}.items()]
    options = {"soak_class": handler["class"], "soak_directory": str(directory)}
    options |= {key: value for key, value in handler.items() if key != "class"}
    lines += ["[handler]", 'class = "gsmtp.soak.handler:InstrumentedHandler"']
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
    """Write certificate.pem and key.pem: self-signed, P-256, valid for thirty days. Raises OSError."""
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
