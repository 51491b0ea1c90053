"""No hook that gsmtp.handler.Handler has is there in vain: a real server calls each, with what it says."""

from __future__ import annotations

import base64
import inspect
import json
from collections.abc import Callable

import pytest
from certificates import Certificates
from harness.master import Master

from gsmtp.handler import Handler
from gsmtp.server.hooks import HOOKS

# Every method of Handler, or but one of the two that get the mail, is overridden by one that notes its arguments.
CODE = """\
import inspect, json, os
from gsmtp import Handler

def noting(name, usual):
    parameters = list(inspect.signature(usual).parameters)[1:]
    def hook(self, *arguments):
        kinds = [type(each).__name__ for each in arguments]
        with open("calls", "a") as file:
            file.write(json.dumps([name, dict(zip(parameters, kinds, strict=True))]) + "\\n")
        if name == "on_rcpt" and arguments[1].local == "raise":
            raise RuntimeError
        return {"get_password": "swordfish", "check_certificate": "alice"}.get(name, name.startswith("check_") or None)
    hook.__signature__ = inspect.signature(usual)
    return hook

LEFT_OUT = "OTHER"
Inbox = type("Inbox", (Handler,), {
    name: noting(name, usual) for name, usual in vars(Handler).items() if inspect.isfunction(usual) and name != LEFT_OUT
})
"""
KINDS = {"Answer": "str", "list[str]": "list", "BaseException": "RuntimeError"}
KINDS |= {"Message": "SpooledMessage", "Stream": "ContentStream"}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def converse(live: Master, certificates: Certificates) -> None:
    """Something of everything that a client can say."""
    with live.connect() as talk:
        for line in ("HELO h.example", "VRFY someone", "XYZZY plugh"):
            talk.ask(line)
        talk.begin("raise@here.example")
        talk.ask("RSET")
        assert talk.deliver(b"x\r\n").startswith("250")
    log_in(live, certificates, "PLAIN " + encoded("\0alice\0swordfish"))
    log_in(live, certificates, "XOAUTH2 " + encoded("user=alice\1auth=Bearer abc\1\1"))
    log_in(live, certificates, "EXTERNAL =")
    log_in(live, certificates, "CRAM-MD5", yes="334")


def log_in(live: Master, certificates: Certificates, how: str, yes: str = "235") -> None:
    with live.connect() as talk:
        talk.secure(certificates.context(certificates.client))
        assert talk.ask(f"AUTH {how}").startswith(yes)
        if yes == "334":
            talk.ask(encoded("alice " + "0123456789abcdef" * 2))


@pytest.mark.parametrize("other", ["on_data", "on_message"])
def test_every_hook_is_called(serve: Callable[..., Master], certificates: Certificates, other: str) -> None:
    pair = certificates.main
    files = {"certfile": pair.certfile, "keyfile": pair.keyfile, "client_ca": certificates.ca}
    live = serve(code=CODE.replace("OTHER", other), hostname="mx.example.org", auth_failure_delay=0, **files)
    converse(live, certificates)
    assert live.stop() == 0
    calls = [json.loads(line) for line in (live.directory / "calls").read_text().splitlines()]
    functions = {name for name, usual in vars(Handler).items() if inspect.isfunction(usual)}
    assert functions == set(HOOKS)
    assert {name for name, _ in calls} == functions - {other}
    for name, given in calls:
        for parameter, kind in given.items():
            wanted = str(inspect.signature(getattr(Handler, name)).parameters[parameter].annotation)
            assert kind == KINDS.get(wanted, wanted) or (name, parameter) == ("on_error", "error"), (name, parameter)
    names = [name for name, _ in calls]
    assert (names[0], names[-1]) == ("on_start", "on_stop")
