"""Lines and end of data: the same result for any slicing, a slow and obvious reader beside the fast one."""

from __future__ import annotations

import re
from itertools import product

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gsmtp.protocol.framing import (
    BareNewlines,
    ContentFault,
    DotReader,
    DotWriter,
    LineFault,
    LineReader,
    format_chunk,
    parse_chunk,
)

MODES: tuple[BareNewlines, ...] = ("reject", "accept", "fix", "strip")
# Random octets hold no newline worth speaking of.
tokens = [b"\r", b"\n", b".", b"a", b"\0", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"bcd"]
nasty = st.lists(st.sampled_from(tokens)).map(b"".join)
modes = st.sampled_from(MODES)


@st.composite
def pieces(draw: st.DrawFn) -> list[bytes]:
    data = draw(nasty)
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


Result = tuple[bytes | ContentFault, bytes | None]


def read(parts: list[bytes], mode: BareNewlines, max_size: int = 0, max_line: int = 0) -> Result:
    """The content or its fault, and what followed its end or None."""
    reader = DotReader(mode, max_size, max_line)
    content = b""
    for at, part in enumerate(parts):
        given_out, rest = reader.read(part)
        content += given_out
        assert reader.fault is not None or reader.size == len(content)
        if rest is not None:
            return reader.fault or content, rest + b"".join(parts[at + 1 :])
    return reader.fault or content, None


def slow(data: bytes, mode: BareNewlines, max_size: int = 0, max_line: int = 0) -> Result:
    """The same by going octet after octet over what has come, with its end before its meaning."""
    end = -1
    if data.startswith(b".\r\n"):
        end, after = 0, 3
    else:
        for at in range(len(data)):
            if data[at : at + 5] == b"\r\n.\r\n":
                end, after = at + 2, at + 5
                break
    if end < 0:
        return b"", None
    text, at_start, content = data[:end], True, b""
    at = 0
    while at < len(text):
        octet = text[at : at + 1]
        if text[at : at + 2] == b"\r\n":
            content += b"\r\n"
            at, at_start = at + 2, True
            continue
        if octet == b"." and at_start:
            pass
        elif octet in b"\r\n":
            if mode == "reject":
                size = slow(data, "accept", max_size)[0]
                return size if size is ContentFault.TOO_LARGE else ContentFault.BARE_NEWLINE, data[after:]
            content += {"accept": octet, "fix": b"\r\n", "strip": b""}[mode]
        else:
            content += octet
        at, at_start = at + 1, False
    if max_size and len(content) > max_size:
        return ContentFault.TOO_LARGE, data[after:]
    if max_line and any(len(line) + 2 > max_line for line in content.split(b"\r\n")[:-1]):
        return ContentFault.LINE_TOO_LONG, data[after:]
    return content, data[after:]


@given(pieces(), modes, st.sampled_from([0, 4, 20]), st.sampled_from([0, 3, 7]))
@example([b"..\r\n", b".\r\n"], "reject", 0, 0)
@example([b"\n.\r", b"\n.\r\n"], "strip", 0, 0)
def test_the_slow_reader_agrees(parts: list[bytes], mode: BareNewlines, max_size: int, max_line: int) -> None:
    wanted = slow(b"".join(parts) + b"x\r\n.\r\nrest", mode, max_size, max_line)
    assert read([*parts, b"x\r", b"\n.\r\nrest"], mode, max_size, max_line) == wanted
    assert read([b"".join(parts) + b"x\r\n.\r\nrest"], mode, max_size, max_line) == wanted


def test_the_slow_reader_agrees_on_every_short_content() -> None:
    # All sequences of up to six of the octets that mean something: 5,460 contents in each mode.
    for length in range(1, 7):
        for octets in product(b"\r\n.a", repeat=length):
            data = bytes(octets) + b"\r\n.\r\n"
            for mode in MODES:
                assert read([data], mode) == slow(data, mode)


@given(pieces(), modes, st.sampled_from([0, 4, 20]), st.sampled_from([0, 3, 7]))
def test_content_does_not_depend_on_slices(
    parts: list[bytes], mode: BareNewlines, max_size: int, max_line: int
) -> None:
    whole = b"".join(parts) + b"\r\n.\r\n"
    bytewise = [whole[at : at + 1] for at in range(len(whole))]
    assert read([whole], mode, max_size, max_line) == read(bytewise, mode, max_size, max_line)
    assert read([whole], mode, max_size, max_line) == read([*parts, b"\r\n.\r\n"], mode, max_size, max_line)


@pytest.mark.parametrize("mode", MODES)
def test_only_crlf_dot_crlf_ends_data(mode: BareNewlines) -> None:
    """`fix` mode must not turn LF.LF or LF.CRLF into the end of data."""
    newlines = [b"\r", b"\n", b"\r\n", b"\n\r", b"\r\r\n", b"\n\n", b"\r\n\0", b"\0\r\n"]
    for before, after in product(newlines, repeat=2):
        data = b"one" + before + b"." + after + b"two"
        ends = before.endswith(b"\r\n") and after.startswith(b"\r\n")
        assert (DotReader(mode).read(data)[1] is not None) == ends, data


@given(pieces(), modes)
def test_at_most_four_octets_are_held_back(parts: list[bytes], mode: BareNewlines) -> None:
    reader = DotReader(mode)
    for part in parts:
        if reader.read(part)[1] is not None:
            break
        assert len(reader._tail) <= 4


def test_nothing_is_given_out_after_a_fault() -> None:
    reader = DotReader("reject", max_size=10)
    assert reader.read(b"12345678") == (b"12345678", None)
    for _ in range(1000):
        assert reader.read(b"x" * 1000) == (b"", None)
    assert reader.fault is ContentFault.TOO_LARGE
    assert reader.read(b"\r\n.\r\nNOOP") == (b"", b"NOOP")


def lines(parts: list[bytes], limit: int, accept_bare: bool) -> list[bytes | LineFault]:
    reader, found = LineReader(limit, accept_bare), []
    for part in parts:
        reader.feed(part)
        while (line := reader.line()) is not None:
            found.append(line)
            if line is LineFault.ENDLESS:
                return found
        assert len(reader.buffer) - reader.at < limit
    return found


def slow_lines(data: bytes, limit: int, accept_bare: bool) -> list[bytes | LineFault]:
    found: list[bytes | LineFault] = []
    *whole, rest = data.split(b"\n")
    for line in whole:
        if len(line) > 16 * limit:
            return [*found, LineFault.ENDLESS]
        if len(line) + 1 > limit:
            found.append(LineFault.TOO_LONG)
        elif b"\r" in line.removesuffix(b"\r") or not (accept_bare or line.endswith(b"\r")):
            found.append(LineFault.BARE_NEWLINE)
        else:
            found.append(line.removesuffix(b"\r"))
    return [*found, LineFault.ENDLESS] if len(rest) > 16 * limit else found


@given(pieces(), st.sampled_from([2, 3, 8, 1000]), st.booleans())
def test_lines_do_not_depend_on_slices(parts: list[bytes], limit: int, accept_bare: bool) -> None:
    data = b"".join(parts)
    wanted = slow_lines(data, limit, accept_bare)
    assert lines([data], limit, accept_bare) == wanted
    assert lines(parts, limit, accept_bare) == wanted
    assert lines([data[at : at + 1] for at in range(len(data))], limit, accept_bare) == wanted


@pytest.mark.parametrize("size", [15 * 8, 16 * 8 - 1, 16 * 8, 16 * 8 + 1, 16 * 8 + 2, 17 * 8])
@pytest.mark.parametrize("step", [1, 3, 7, 8, 1000])
def test_a_line_without_end_is_the_same_in_any_slices(size: int, step: int) -> None:
    data = b"x" * size + b"\nNOOP\r\n"
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    assert lines(parts, 8, False) == slow_lines(data, 8, False)


def test_take_gives_what_no_line_has_used() -> None:
    reader = LineReader(100, False)
    reader.feed(b"DATA\r\ncontent")
    assert reader.line() == b"DATA"
    assert reader.pending
    assert reader.take() == b"content"
    assert not reader.pending
    assert reader.line() is None
    reader.feed(b"NO")
    reader.feed(b"OP\r\n")
    assert reader.line() == b"NOOP"


def test_content_is_found_in_chunks_of_any_size() -> None:
    body = re.sub(rb"(?m)^\.", b"..", b"".join(b".line %d\r\n" % number for number in range(2000)))
    for step in (1, 2, 3, 5, 1000, 65536):
        data = body + b".\r\n"
        content, rest = read([data[at : at + step] for at in range(0, len(data), step)], "reject")
        assert content == b"".join(b".line %d\r\n" % number for number in range(2000))
        assert rest == b""


def written(pieces: list[bytes], bare_newlines: bool = False) -> bytes:
    writer = DotWriter(bare_newlines)
    return b"".join(map(writer.write, pieces)) + writer.finish()


@pytest.mark.parametrize(
    ("content", "wire"),
    [
        (b"", b".\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"..\r\n.\r\na.\r\n", b"...\r\n..\r\na.\r\n.\r\n"),
        (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
    ],
)
def test_stuffing(content: bytes, wire: bytes) -> None:
    assert written([content]) == written([content[at : at + 1] for at in range(len(content))]) == wire


@pytest.mark.parametrize("content", [b"a\nb", b"a\rb", b"\n", b"\r", b"a\r\r\n", b"a\r\n\r"])
def test_stuffing_refuses_bare_newlines(content: bytes) -> None:
    for pieces in ([content], [content[at : at + 1] for at in range(len(content))]):
        with pytest.raises(ValueError, match="bare CR or LF"):
            written(pieces)
        assert DotReader("accept").read(written(pieces, bare_newlines=True))[0].startswith(content)


PIECES = st.lists(st.sampled_from([b".", b"..", b"\r\n", b"a", b".\r\n", b"\r\n.", b"\r", b"\n", b""]), max_size=12)


@given(PIECES)
def test_a_reader_undoes_a_writer(pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    wire = written(pieces, bare_newlines=True)
    assert wire == written([content], bare_newlines=True)
    ended = content if not content or content.endswith(b"\r\n") else content + b"\r\n"
    assert DotReader("accept").read(wire) == (ended, b"")


@pytest.mark.parametrize(("size", "last", "line"), [(5, False, b"BDAT 5\r\n"), (0, True, b"BDAT 0 LAST\r\n")])
def test_the_header_of_a_chunk(size: int, last: bool, line: bytes) -> None:
    assert format_chunk(size, last) == line
    assert parse_chunk(line[5:-2].decode()) == (size, last, True)


@pytest.mark.parametrize("size", [-1, 10**20])
def test_what_is_no_size_of_a_chunk(size: int) -> None:
    with pytest.raises(ValueError):
        format_chunk(size)
