"""The hooks of one handler object: which exist is found out once, and a failure of one becomes a reply here.

What a hook raises, and the reply that its client gets:

    raised                                  the client gets
    Reject, Defer, Disconnect               the reply it carries
    OSError for a full disk, MemoryError    452 4.3.1 with a reference (421 at connect)
    the deadline                            451 4.3.0 with a reference (421 at connect)
    anything else, also a wrong return      451 4.3.0 with a reference (421 at connect)

The log has the reference beside the traceback; the exception's text is never sent to the client. The calls themselves,
with their deadlines, are in gsmtp/server/runner.py.
"""

from __future__ import annotations

import difflib
import errno
import inspect
import logging
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit

from gsmtp.handler import Handler
from gsmtp.net.errors import DeadlineExceeded
from gsmtp.reply import Reply
from gsmtp.server.failures import formatted

logger = logging.getLogger("gsmtp.handler")

HOOKS = tuple(name for name in vars(Handler) if name.startswith(("on_", "check_", "get_")))
# A method with such a name that is no hook is taken for a misspelt one: it would never be called.
_PREFIXES = ("on_", "check_password", "check_token", "check_cert", "get_password")
_NOT_PLAIN = (inspect.iscoroutinefunction, inspect.isasyncgenfunction, inspect.isgeneratorfunction)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class HandlerError(Exception):
    """The handler class cannot be used. The message is one line for its author."""


class Hooks:
    """Each attribute is the bound method of a hook, or None where the hook is not overridden.

    `auth` has the names of the check_ and get_ hooks that exist; `asks` the names of the other hooks without
    "on_": the protocol hands an event out only if its name is among them.
    """

    def __init__(self, handler: Any, new_id: Callable[[], str]) -> None:
        """Raises HandlerError for a hook that does not exist, takes the wrong arguments, or would lose mail."""
        self.handler = handler
        self._new_id = new_id
        kind = type(handler)
        for name in sorted(dir(kind)):
            if name.startswith(_PREFIXES) and name not in HOOKS and callable(getattr(kind, name)):
                close = difflib.get_close_matches(name, HOOKS, 1)
                raise HandlerError(
                    f"{kind.__name__}.{name} is no hook" + (f"; did you mean {close[0]}?" if close else "")
                )
        found = {name: self._resolve(name) for name in HOOKS}
        self.on_start, self.on_stop = found["on_start"], found["on_stop"]
        self.on_connect, self.on_disconnect = found["on_connect"], found["on_disconnect"]
        self.on_tls = found["on_tls"]
        self.on_helo, self.on_ehlo = found["on_helo"], found["on_ehlo"]
        self.on_mail, self.on_rcpt = found["on_mail"], found["on_rcpt"]
        self.on_data, self.on_message = found["on_data"], found["on_message"]
        self.on_reset, self.on_vrfy = found["on_reset"], found["on_vrfy"]
        self.on_command, self.on_error = found["on_command"], found["on_error"]
        if (self.on_data is None) == (self.on_message is None):
            fault = "neither on_message nor on_data: its mail would be lost"
            if self.on_data is not None:
                fault = "both on_message and on_data: which one gets the mail?"
            raise HandlerError(f"{kind.__name__} has {fault}")
        self.check_password, self.get_password = found["check_password"], found["get_password"]
        self.check_token, self.check_certificate = found["check_token"], found["check_certificate"]
        self.auth = frozenset(name for name in HOOKS if not name.startswith("on_") and found[name] is not None)
        self.asks = frozenset(name[3:] for name in HOOKS if name.startswith("on_") and found[name] is not None)

    def _resolve(self, name: str) -> Callable[..., Any] | None:
        own = getattr(type(self.handler), name, None)
        usual = getattr(Handler, name)
        if own is None or own is usual:
            return None
        hook: Callable[..., Any] = getattr(self.handler, name)
        if any(kind(hook) for kind in _NOT_PLAIN):
            # It would only make an object that nobody runs, and every message would be deferred.
            raise HandlerError(f"{type(self.handler).__name__}.{name} is async or yields; hooks are plain functions")
        arguments = list(inspect.signature(usual).parameters)[1:]
        try:
            inspect.signature(hook).bind(*arguments)
        except TypeError:
            raise HandlerError(
                f"{type(self.handler).__name__}.{name} must take ({', '.join(['self', *arguments])})"
            ) from None
        except ValueError:
            pass  # no signature to be had, as with some built-ins
        return hook

    def failure(
        self,
        name: str,
        session_id: str,
        error: BaseException,
        *arguments: Any,
        secret: str = "",
        withhold: bool = False,
    ) -> Reply:
        """Log `error` with a reference, call on_error, and return the reply.

        `name` is the hook's, or another word for what has failed; `arguments` are the hook's, of which the first is or
        has the session. `secret` is kept out of the log; with `withhold` the log has the types of the exceptions and
        none of their texts. Raises GreenletExit when the greenlet is killed meanwhile.
        """
        reference = self._new_id()
        late = isinstance(error, DeadlineExceeded)
        full = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _FULL)
        fields = {"session": session_id, "reference": reference, "hook": name}
        fields["traceback"] = formatted(error, secret, withhold)
        logger.error("hook failed%s", " at its deadline" if late else "", extra={"fields": fields})
        if self.on_error is not None and arguments:
            session = getattr(arguments[0], "session", arguments[0])
            self.notify(self.on_error, session_id, session, error, secret=secret, withhold=withhold)
        if name in ("on_connect", "on_tls"):
            return Reply(421, "4.3.0", f"Service not available [{reference}]")
        if name in self.auth:
            return Reply(454, "4.7.0", f"Temporary authentication failure [{reference}]")
        if full:
            return Reply(452, "4.3.1", f"Insufficient system storage [{reference}]")
        return Reply(451, "4.3.0", f"{'Timed out' if late else 'Internal error'}, try again later [{reference}]")

    def notify(
        self,
        hook: Callable[..., Any],
        session_id: str,
        *arguments: Any,
        secret: str = "",
        withhold: bool = False,
    ) -> None:
        """Call a hook that decides nothing. A failure is logged as by `failure`. Raises GreenletExit only."""
        try:
            hook(*arguments)
        except GreenletExit:
            raise
        except BaseException as error:
            # The error that on_error was given is part of this one's traceback.
            text = formatted(error, secret, withhold)
            fields = {"session": session_id, "hook": hook.__name__, "traceback": text}
            logger.error("hook failed", extra={"fields": fields})
