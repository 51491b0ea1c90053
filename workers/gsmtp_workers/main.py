"""The life of a worker process: take over what the master left, become the user, boot, serve.

Promises: nothing of the service is imported before the change of user. Signals that the master held back are let
through when their handlers are set. Descriptors that were inherited are not inherited further. Must not know: what is
served.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import resource
import signal
import sys
import traceback

from gsmtp_workers.config import WorkerConfig
from gsmtp_workers.identity import become
from gsmtp_workers.plan import BootError, one_line
from gsmtp_workers.proctitle import set_title
from gsmtp_workers.worker import Worker


def main(fd: int) -> int:
    """Run one worker with the config in the file `fd`, which is closed. Returns the exit status."""
    _prepare_process()
    config = WorkerConfig.read(fd)
    os.close(fd)
    for inherited in config.inherited:
        os.set_inheritable(inherited, False)  # otherwise the service's own children would hold them open
    worker = Worker(config)
    if config.plan.title:
        set_title(f"{config.plan.title}: {worker.name}")
    try:
        if config.identity is not None:
            become(config.identity)
        sys.path.insert(0, os.getcwd())
        worker.boot()
    except BootError as error:
        print(one_line(str(error)), file=sys.stderr)
        return error.status
    except Exception:
        traceback.print_exc()
        return 3
    if not worker.checking:
        worker.serve()
    return 0


def _prepare_process() -> None:
    """Set the signals, which the master has blocked until here so that none kills a process that only starts."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as under nohup: then it stays so
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda *_: None)  # not SIG_IGN, which the service's own children would inherit
    if sys.stderr is not None:
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR2, all_threads=True)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM}
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
