"""Which hook answers which question of AUTH, and which of its arguments is secret."""

from __future__ import annotations

from gsmtp.protocol import sasl


def hook_for(question: sasl.Question) -> tuple[str, tuple[str, ...], str] | None:
    """Return the hook's name, its arguments after the session, and the secret among them ("" for none).

    None means that the answer is no and no hook is asked: nobody may log in by password as another user.
    """
    if isinstance(question, sasl.CheckPassword):
        if question.authzid not in ("", question.user):
            return None
        return "check_password", (question.user, question.password), question.password
    if isinstance(question, sasl.GetPassword):
        return "get_password", (question.user, question.mechanism), ""
    if isinstance(question, sasl.CheckToken):
        return "check_token", (question.user, question.token), question.token
    return "check_certificate", (question.authzid,), ""
