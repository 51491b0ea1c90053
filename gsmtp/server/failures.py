"""The traceback of a failed hook as text for the log, without the secret that the hook was given.

The text of an exception may hold a password: in the repr of a str or of bytes, in JSON, in a URL, in base64. All these
forms are masked. Where the secret is not known, as with what `get_password` has fetched, the text of each exception is
withheld and only its type is kept.
"""

from __future__ import annotations

import base64
import json
import traceback
from urllib.parse import quote, quote_plus


def formatted(error: BaseException, secret: str, withhold: bool) -> str:
    """The traceback of `error` and of those that led to it, with `secret` masked, or with all texts withheld."""
    if withhold:
        return "\nwhich led to\n\n".join(reversed([_without_text(each) for each in _chain(error)]))
    text = "".join(traceback.format_exception(error))
    return masked(text, secret) if secret else text


def masked(text: str, secret: str) -> str:
    """`text` with each form of `secret` replaced."""
    for form in _forms(secret):
        text = text.replace(form, "[secret]")
    return text


def _forms(secret: str) -> list[str]:
    """The forms in which a text may hold `secret`, the longest first."""
    octets = secret.encode()
    forms = {secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(octets)[2:-1], json.dumps(secret)[1:-1]}
    forms |= {quote(secret), quote_plus(secret), quote(secret, safe=""), base64.b64encode(octets).decode()}
    forms |= {form.replace("'", "\\'") for form in forms}
    return sorted(forms, key=len, reverse=True)


def _chain(error: BaseException) -> list[BaseException]:
    """`error`, and those that led to it, as Python would print them."""
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and not any(step is each for each in found):
        found.append(step)
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return found


def _without_text(error: BaseException) -> str:
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{frames}{type(error).__qualname__}: [text withheld: it may hold a password]\n"
