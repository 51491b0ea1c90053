"""BDAT, and extensions that a handler claims, through a real master and its workers."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.client import Client
from harness.master import Master, run

HERE = Path(__file__).parent
OPEN = b"MAIL FROM:<a@example.net>%s\r\nRCPT TO:<b@example.net>\r\n"


def serving(directory: Path, *arguments: str) -> Master:
    """A master whose handlers are found here."""
    return Master(directory, [*arguments, "-b", "smtp://127.0.0.1:0", "-s", f"chdir={HERE}"])


def bdat(data: bytes, last: bool = False) -> bytes:
    return b"BDAT %d%s\r\n" % (len(data), b" LAST" if last else b"") + data


def test_binary_content_is_in_the_maildir_to_the_octet(tmp_path: Path) -> None:
    octets = bytes(range(256)) * 4096 + b"\n.\n\r\n.\r\nQUIT\r\n\0\r\r\n\n\r"
    head = b"Subject: binary\r\n\r\n"
    with serving(tmp_path, "-o", f"path={tmp_path}/box") as server, server.connect() as client:
        pipeline = OPEN % b" BODY=BINARYMIME" + bdat(head) + bdat(octets) + bdat(b"") + bdat(b"\n", True) + b"QUIT\r\n"
        replies = client.exchange(pipeline, 7)
        assert [reply[:9] for reply in replies[:6]] == ["250 2.1.0", "250 2.1.5"] + ["250 2.0.0"] * 4
        assert replies[3] == f"250 2.0.0 {len(octets)} octets received"
        assert replies[6].startswith("221")
    (stored,) = (tmp_path / "box" / "new").iterdir()
    content = stored.read_bytes()
    assert content.endswith(b"\r\n" + head + octets + b"\n")
    assert content.index(head) == len(content) - len(head + octets) - 1


def notes(directory: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (directory / "notes").read_text().splitlines()]


def test_a_stream_goes_over_chunks_and_the_commands_between_them(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "chunkinghandlers:Streaming", "-o", f"path={tmp_path}") as server,
        server.connect() as client,
    ):
        client.exchange(OPEN % b" XTICKET=7", 2)
        # One at a time, so that the hook is at work between them.
        for each in (bdat(b"one\r\n"), b"NOOP\r\n", b"VRFY x\r\n", b"DATA\r\n", bdat(b"two\r\n")):
            client.exchange(each)
        assert client.exchange(bdat(b"three", True)) == ["250 2.0.0 streamed"]
        whole = {"ended": "whole", "content": "one\r\ntwo\r\nthree", "ticket": 7}
        assert notes(tmp_path) == [{"vrfy": "x"}, whole]


def test_a_stream_ends_when_its_message_does(tmp_path: Path) -> None:
    arguments = ("-s", "max_message_size=100", "-o", f"path={tmp_path}")
    with serving(tmp_path, "chunkinghandlers:Streaming", *arguments) as server, server.connect() as client:
        gone = "554 5.5.1 The client gave the message up"
        expected: list[dict[str, object]] = []
        for end, replies, why in (
            (b"RSET\r\n", ["250 2.0.0"], gone),
            (b"EHLO c\r\n", ["250 CHUNK"], gone),
            (bdat(b"x" * 101) + bdat(b"", True), ["552 5.3.4"] * 2, "552 5.3.4 Message too large"),
            (b"BDAT 4 WHAT\r\nQUIT" + bdat(b"", True), ["501 5.5.4"] * 2, "501 5.5.4 Syntax: BDAT octets [LAST]"),
        ):
            client.exchange(OPEN % b"", 2)
            assert client.exchange(bdat(b"one\r\n")) == ["250 2.0.0 5 octets received"]
            said = client.exchange(end, len(replies))
            if not end.startswith(b"EHLO"):
                assert [reply[:9] for reply in said] == replies
            expected += [{"reset": 1}, {"ended": f"Reject: {why}", "content": "one\r\n"}]
            # The session lives, and a whole message goes through after each.
            assert client.exchange(OPEN % b"" + bdat(b"fine", True), 3)[-1] == "250 2.0.0 streamed"
            expected.append({"ended": "whole", "content": "fine", "ticket": None})
            assert notes(tmp_path) == expected
        client.exchange(OPEN % b"" + bdat(b"one\r\n"), 3)
        assert client.exchange(b"QUIT\r\n")[0].startswith("221")
        assert client.rest() == b""
    assert sorted(map(str, notes(tmp_path)[len(expected) :])) == sorted(
        map(str, [{"reset": 1}, {"ended": f"Reject: {gone}", "content": "one\r\n"}])
    )


def test_what_a_handler_claims_is_offered_and_its_failures_are_not_told(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "chunkinghandlers:Streaming", "-o", f"path={tmp_path}") as server,
        Client(server.address) as client,
    ):
        assert client.ask("EHLO c").endswith("\n250 XTICKET")
        assert client.exchange(b"MAIL FROM:<> XTICKET=x\r\n") == ["501 5.5.4 XTICKET takes a number"]
        (failed,) = client.exchange(b"MAIL FROM:<> XTICKET=boom\r\n")
        assert re.fullmatch(r"451 4\.3\.0 Internal error, try again later \[\w+\]", failed)
        assert client.exchange(b"MAIL FROM:<> XTICKET=1 RET=HDRS\r\n")[0].startswith("250")
        client.exchange(b"QUIT\r\n")
    reference = failed[failed.index("[") + 1 : -1]
    assert reference in server.log
    assert "a secret" in server.log


def test_claims_that_cannot_be_kept_end_the_start_with_one_line(tmp_path: Path) -> None:
    for name, why in (("Clashing", "claims parameter SIZE"), ("Misspelt", "there is no extension DNS")):
        arguments = [f"chunkinghandlers:{name}", "-b", "smtp://127.0.0.1:0", "--check"]
        done = run(*arguments, "-s", f"chdir={HERE}", "-o", f"path={tmp_path}", directory=tmp_path)
        assert done.returncode != 0
        assert why in done.stderr
        assert "Traceback" not in done.stderr
