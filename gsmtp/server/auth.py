"""Which hook answers which question of AUTH, and what of it is secret."""

from __future__ import annotations

from collections.abc import Callable

from gsmtp.protocol import sasl
from gsmtp.protocol.envelope import Session
from gsmtp.server.hooks import Check, Hooks


def ask(
    question: sasl.Question, hooks: Hooks, run_check: Callable[..., Check], timeout: float, session: Session
) -> tuple[str, Check]:
    """The name of the hook, and what it says under `run_check` (see Line in gsmtp/server/dispatcher.py).

    A mechanism is offered only where the hook for its questions is there.
    """
    if isinstance(question, sasl.CheckPassword):
        assert hooks.check_password is not None
        if question.authzid not in ("", question.user):
            return "check_password", Check(False)  # nobody may act as another; no hook is asked about that
        user, password = question.user, question.password
        return "check_password", run_check(hooks.check_password, timeout, session, user, password, secret=password)
    if isinstance(question, sasl.GetPassword):
        assert hooks.get_password is not None
        asked = question.user, question.mechanism
        return "get_password", run_check(hooks.get_password, timeout, session, *asked)
    if isinstance(question, sasl.CheckToken):
        assert hooks.check_token is not None
        user, token = question.user, question.token
        return "check_token", run_check(hooks.check_token, timeout, session, user, token, secret=token)
    assert hooks.check_certificate is not None
    return "check_certificate", run_check(hooks.check_certificate, timeout, session, question.authzid)
