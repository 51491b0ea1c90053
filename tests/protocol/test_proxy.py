"""The PROXY protocol reader: octets as the specification has them, sliced anywhere, and broken everywhere."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.protocol.proxy import (
    ProxyCommand,
    ProxyError,
    ProxyFamily,
    ProxyHeader,
    ProxyReader,
    ProxyTls,
    encode,
)
from gsmtp.protocol.proxy.crc32c import crc32c

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
TAIL = b"\x16\x03\x01\x02\x00EHLO client\r\n"


def read(data: Any, limit: int = 4096) -> Any:
    """(header, rest) of `data` in one piece."""
    reader = ProxyReader(limit)
    return reader.feed(data), reader.rest


def outcome(pieces: Any, limit: int = 4096) -> Any:
    """What comes of feeding the pieces: the header with what followed it, "more", or the error's text."""
    reader, header = ProxyReader(limit), None
    pieces = list(pieces)
    while pieces and header is None:
        try:
            header = reader.feed(pieces.pop(0))
        except ProxyError as error:
            return str(error)
    return "more" if header is None else (header, reader.rest + b"".join(pieces))


def binary(body: Any, command: int = 0x21, family: int = 0x11) -> Any:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2, "big") + body


def tlv(kind: Any, value: Any) -> Any:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


TCP4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (56324).to_bytes(2, "big") + (25).to_bytes(2, "big")


# Version 1


@pytest.mark.parametrize(
    ("line", "family", "source", "destination"),
    [
        (
            b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ProxyFamily.TCP4,
            ("192.168.0.1", 56324),
            ("192.168.0.11", 443),
        ),
        (
            b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
            ProxyFamily.TCP4,
            ("0.0.0.0", 0),
            ("255.255.255.255", 65535),
        ),
        (
            b"PROXY TCP6 2001:DB8:0::1 ::1 1 2\r\n",
            ProxyFamily.TCP6,
            ("2001:db8::1", 1, 0, 0),
            ("::1", 2, 0, 0),
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c000:202 1 2\r\n",
            ProxyFamily.TCP6,
            ("::ffff:192.0.2.1", 1, 0, 0),
            ("::ffff:192.0.2.2", 2, 0, 0),
        ),
        (b"PROXY UNKNOWN\r\n", ProxyFamily.UNSPEC, None, None),
        (b"PROXY UNKNOWN \xff any thing\r\n".replace(b"\xff", b"~"), ProxyFamily.UNSPEC, None, None),
    ],
)
def test_lines(line: Any, family: Any, source: Any, destination: Any) -> None:
    header, rest = read(line + TAIL)
    assert header == ProxyHeader(1, ProxyCommand.PROXY, family, source, destination)
    assert rest == TAIL


def test_the_longest_line() -> None:
    six = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    line = f"PROXY UNKNOWN {six} {six} 65535 65535\r\n".encode()
    assert len(line) == 107
    assert read(line)[0].source is None
    assert "longer than 107" in outcome([line[:-2] + b"0\r\n"])
    assert "longer than 107" in outcome([line[:-2] + b"00"])
    assert outcome([line[:-2]]) == "more"


@pytest.mark.parametrize(
    "line",
    [
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443 \r\n",
        b"PROXY TCP4  192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 65536\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 0443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 -1 443\r\n",
        b"PROXY TCP4 192.168.0.1 192.168.0.11 +1 443\r\n",
        "PROXY TCP4 192.168.0.1 192.168.0.11 1 ٣\r\n".encode(),
        b"PROXY TCP4 192.168.0.01 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 192.168.0 192.168.0.11 56324 443\r\n",
        b"PROXY TCP4 ::1 ::1 56324 443\r\n",
        b"PROXY TCP6 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 ::1 56324 443\r\n",
        b"PROXY TCP6 [::1] ::1 56324 443\r\n",
        b"PROXY UDP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY tcp4 192.168.0.1 192.168.0.11 56324 443\r\n",
        b"PROXY UNKNOWNX\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN \xff\r\n",
        b"PROXY\tUNKNOWN\r\n",
        b"proxy UNKNOWN\r\n",
        b"EHLO client\r\n",
        b" PROXY UNKNOWN\r\n",
        b"\x16\x03\x01",
        b"\0",
    ],
)
def test_what_is_no_line(line: Any) -> None:
    with pytest.raises(ProxyError):
        read(line)


def test_a_wrong_first_octet_is_told_at_once() -> None:
    for data in (b"E", b"Q", b"\n", b"PROXYX"):
        with pytest.raises(ProxyError):
            ProxyReader().feed(data)


def test_nothing_is_fed_after_the_header() -> None:
    reader = ProxyReader()
    assert reader.feed(b"") is None
    assert reader.feed(b"PROXY UNKNOWN\r\n") is not None
    with pytest.raises(RuntimeError):
        reader.feed(b"EHLO")


# Version 2


def test_binary_addresses() -> None:
    header, rest = read(binary(TCP4) + TAIL)
    assert (header.command, header.family) == (ProxyCommand.PROXY, ProxyFamily.TCP4)
    assert (header.source, header.destination, rest) == (("192.0.2.1", 56324), ("198.51.100.7", 25), TAIL)
    six = bytes.fromhex("20010db8000000000000000000000001") + bytes(15) + b"\x01" + b"\x00\x01\x00\x02"
    header, rest = read(binary(six, family=0x21) + TAIL)
    assert (header.source, header.destination, rest) == (("2001:db8::1", 1, 0, 0), ("::1", 2, 0, 0), TAIL)
    unix = b"/run/a".ljust(108, b"\0") + b"\0abstract".ljust(108, b"\0")
    header, rest = read(binary(unix, family=0x31) + TAIL)
    assert (header.family, header.source, header.destination) == (ProxyFamily.UNIX, "/run/a", "\0abstract")
    assert rest == TAIL


@pytest.mark.parametrize("family", [0x00, 0x01, 0x02, 0x11, 0x44, 0xFF])
def test_local_ignores_its_block(family: int) -> None:
    header, rest = read(binary(TCP4 + b"\x05\xff\xffjunk", 0x20, family) + TAIL)
    assert header == ProxyHeader(2, ProxyCommand.LOCAL)
    assert header.source is None
    assert rest == TAIL


@pytest.mark.parametrize("family", [0x00, 0x01, 0x02, 0x10, 0x12])
def test_what_is_not_a_stream_keeps_the_real_peer(family: int) -> None:
    body = TCP4 if family & 0x10 else b"anything"
    header, rest = read(binary(body, family=family) + TAIL)
    assert header == ProxyHeader(2, ProxyCommand.PROXY)
    assert rest == TAIL


@pytest.mark.parametrize(
    "data",
    [
        binary(TCP4, command=0x11),
        binary(TCP4, command=0x31),
        binary(TCP4, command=0x22),
        binary(TCP4, family=0x13),
        binary(TCP4, family=0x41),
        binary(TCP4[:-1]),
        binary(b""),
        binary(TCP4, family=0x21),
        binary(TCP4 + b"\x01"),
        binary(TCP4 + b"\x01\x00"),
        binary(TCP4 + b"\x01\x00\x05smtp"),
        binary(TCP4 + tlv(1, b"a") + tlv(1, b"b")),
        binary(TCP4 + tlv(5, bytes(129))),
        binary(TCP4 + tlv(0x20, bytes(4))),
        binary(TCP4 + tlv(0x20, bytes(5) + b"\x21\x00\x09TLS")),
        binary(TCP4 + tlv(0x20, bytes(5) + tlv(0x21, b"a") + tlv(0x21, b"b"))),
        binary(TCP4 + tlv(3, bytes(3))),
        binary(TCP4 + tlv(3, bytes(4))),
        binary(TCP4 + tlv(3, bytes(4)) + tlv(3, bytes(4))),
        SIGNATURE[:-1] + b"\r",
    ],
)
def test_what_is_no_binary_header(data: Any) -> None:
    with pytest.raises(ProxyError):
        read(data)


def test_the_limit_counts_the_whole_header() -> None:
    data = binary(TCP4 + tlv(0xEA, bytes(50)))
    assert read(data, len(data))[0] is not None
    with pytest.raises(ProxyError, match="more than"):
        read(data[:16], len(data) - 1)
    with pytest.raises(ProxyError, match="65551 octets"):
        read(SIGNATURE + b"\x21\x11\xff\xff")


def test_tlvs() -> None:
    tls = bytes([0x03]) + bytes(4)
    tls += tlv(0x21, b"TLSv1.3") + tlv(0x22, "é.example".encode()) + tlv(0x23, b"TLS_AES_128_GCM_SHA256")
    tls += tlv(0x24, b"SHA256") + tlv(0x25, b"RSA2048") + tlv(0x29, b"new")
    body = TCP4 + tlv(4, b"pad") + tlv(1, b"smtp") + tlv(2, b"mx.example") + tlv(5, b"\x00id") + tlv(0x20, tls)
    body += tlv(0x30, b"blue") + tlv(0xEA, b"\x01vpce-1") + tlv(0xEA, b"")
    header, rest = read(binary(body) + TAIL)
    assert rest == TAIL
    assert (header.alpn, header.authority, header.unique_id, header.netns) == (b"smtp", "mx.example", b"\x00id", "blue")
    assert header.other == ((0xEA, b"\x01vpce-1"), (0xEA, b""))
    assert header.tls == ProxyTls(
        active=True,
        certificate_now=True,
        version="TLSv1.3",
        common_name="é.example",
        cipher="TLS_AES_128_GCM_SHA256",
        signature="SHA256",
        key="RSA2048",
        other=((0x29, b"new"),),
    )
    assert header.tls.verified


@pytest.mark.parametrize(
    ("flags", "verify", "verified"),
    [(0x01, 0, False), (0x03, 0, True), (0x05, 0, True), (0x03, 18, False), (0x02, 0, False), (0x00, 0, False)],
)
def test_only_a_certificate_can_be_verified(flags: int, verify: int, verified: bool) -> None:
    header, _ = read(binary(TCP4 + tlv(0x20, bytes([flags]) + verify.to_bytes(4, "big"))))
    assert header.tls.verified is verified
    assert header.tls.verify == verify


def test_bad_encodings_are_kept_visible() -> None:
    header, _ = read(binary(TCP4 + tlv(2, b"a\xffb")))
    assert header.authority == "a\\xffb"


def test_crc32c_check_values() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    # RFC 3720 B.4
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_a_checksum_covers_every_octet() -> None:
    ends: dict[str, Any] = {"source": ("192.0.2.1", 1), "destination": ("192.0.2.2", 25)}
    data = encode(ProxyHeader(family=ProxyFamily.TCP4, **ends, unique_id=b"x", checksum=True))
    assert read(data)[0].checksum
    for at in {*range(16, len(data))} - {len(data) - 7}:  # the type of the checksum itself cannot be covered
        broken = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert isinstance(outcome([broken]), str), at


# Properties

texts = st.none() | st.text(st.characters(codec="utf-8"), max_size=20)
others = st.lists(st.tuples(st.sampled_from([0x06, 0xE0, 0xFF]), st.binary(max_size=9)), max_size=3).map(tuple)
ports = st.integers(0, 65535)


def _ipv6(ip: Any) -> str:
    return f"::ffff:{ip.ipv4_mapped}" if ip.ipv4_mapped else str(ip)


ends = {
    ProxyFamily.TCP4: st.tuples(st.ip_addresses(v=4).map(str), ports),
    ProxyFamily.TCP6: st.tuples(
        st.ip_addresses(v=6).map(_ipv6),
        ports,
        st.just(0),
        st.just(0),
    ),
    ProxyFamily.UNIX: st.text("abc/é", max_size=50).map(lambda path: path.strip()),
}
tls_values = st.builds(
    ProxyTls,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    texts,
    texts,
    texts,
    texts,
    texts,
    others,
)


@st.composite
def headers(draw: Any) -> Any:
    family = draw(st.sampled_from(list(ends)))
    source, destination = draw(ends[family]), draw(ends[family])
    if family is not ProxyFamily.UNIX and draw(st.booleans()):
        return ProxyHeader(1, ProxyCommand.PROXY, family, source, destination)
    return ProxyHeader(
        2,
        ProxyCommand.PROXY,
        family,
        source,
        destination,
        draw(st.none() | st.binary(max_size=9)),
        draw(texts),
        draw(st.none() | st.binary(max_size=128)),
        draw(st.none() | tls_values),
        draw(texts),
        draw(st.booleans()),
        draw(others),
    )


@given(headers(), st.binary(max_size=20))
def test_what_is_encoded_is_read_again(header: Any, tail: Any) -> None:
    data = encode(header) + tail
    assert outcome([data]) == (header, tail)
    assert outcome(bytes([octet]) for octet in data) == (header, tail)


@given(headers() | st.just(ProxyHeader(1)) | st.just(ProxyHeader(2)), st.data())
def test_slicing_changes_nothing(header: Any, data: Any) -> None:
    """Whatever is broken or cut off, every slicing comes to the same end, which is a header, more, or an error."""
    changed = bytearray(encode(header) + b"EHLO\r\n")
    for _ in range(data.draw(st.integers(0, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    octets = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=4)))
    pieces = [octets[start:end] for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    whole = outcome([octets])
    assert outcome(pieces) == whole
    assert outcome(octets[at : at + 1] for at in range(len(octets))) == whole


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"])
)
def test_no_octets_do_harm(data: Any, start: Any) -> None:
    whole = outcome([start + data])
    assert outcome(bytes([octet]) for octet in start + data) == whole


@pytest.mark.parametrize(
    "header",
    [
        ProxyHeader(1, ProxyCommand.LOCAL),
        ProxyHeader(1, family=ProxyFamily.UNIX, source="/a", destination="/b"),
        ProxyHeader(1, family=ProxyFamily.TCP4, source=("192.0.2.1", 1), destination=("192.0.2.2", 2), alpn=b"smtp"),
        ProxyHeader(1, family=ProxyFamily.TCP4, source=("::1", 1), destination=("::1", 2)),
        ProxyHeader(family=ProxyFamily.TCP4, source=("192.0.2.1", 65536), destination=("192.0.2.2", 2)),
        ProxyHeader(family=ProxyFamily.TCP4),
        ProxyHeader(family=ProxyFamily.UNIX, source="a" * 109, destination=""),
        ProxyHeader(command=ProxyCommand.LOCAL, alpn=b"smtp"),
    ],
)
def test_what_cannot_be_encoded(header: Any) -> None:
    with pytest.raises(ValueError):
        encode(header)


# A real proxy

HAPROXY = """
global
    ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
    mode tcp
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend one
    bind {bound}
    default_backend all
backend all
    server only 127.0.0.1:{port} {option}
"""
NEW_CERTIFICATE = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-subj", "/CN=client.example"]
V2 = "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,cert-cn,ssl-cipher,cert-sig,cert-key,authority"


@pytest.fixture
def through_haproxy(tmp_path: Path) -> Iterator[Any]:
    """through_haproxy(server's options, bind's options, TLS of the client, a header of its own) -> what it tells."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    processes: list[subprocess.Popen[bytes]] = []

    def run(option: Any, bind: str = "", context: Any = None, first: Any = None) -> Any:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            front = probe.getsockname()
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(20)
            bound = f"{front[0]}:{front[1]} {bind}"
            config = tmp_path / "haproxy.cfg"
            config.write_text(HAPROXY.format(bound=bound, port=server.getsockname()[1], option=option))
            process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stderr=subprocess.PIPE)
            processes.append(process)
            with _connected(front, process) as client:
                if context is not None:
                    client = context.wrap_socket(client, server_hostname="mx.example")
                client.sendall((encode(first) if first else b"") + TAIL)
                accepted, _ = server.accept()
                with accepted, client:
                    accepted.settimeout(20)
                    reader, header = ProxyReader(), None
                    while header is None:
                        data = accepted.recv(1)
                        assert data, "closed within the header"
                        header = reader.feed(data)
                    assert accepted.recv(len(TAIL), socket.MSG_WAITALL) == TAIL
                    assert header.source == (first.source if first else client.getsockname())
                    assert header.destination == (first.destination if first else client.getpeername())
                    return header

    yield run
    for process in processes:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _connected(address: Any, process: Any) -> Any:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(address, timeout=20)
        except ConnectionRefusedError:
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("option", "version", "checksum"), [("send-proxy", 1, False), ("send-proxy-v2", 2, False), (V2, 2, True)]
)
def test_haproxy(through_haproxy: Any, option: Any, version: int, checksum: bool) -> None:
    header = through_haproxy(option)
    assert (header.version, header.family, header.checksum) == (version, ProxyFamily.TCP4, checksum)
    assert header.tls is None or not header.tls.active


@pytest.mark.parametrize(
    "first",
    [
        ProxyHeader(1, family=ProxyFamily.TCP4, source=("192.0.2.1", 1), destination=("192.0.2.2", 25)),
        ProxyHeader(1, family=ProxyFamily.TCP6, source=("2001:db8::1", 1, 0, 0), destination=("::1", 25, 0, 0)),
        ProxyHeader(2, family=ProxyFamily.TCP6, source=("2001:db8::1", 1, 0, 0), destination=("::1", 25, 0, 0)),
        ProxyHeader(
            2,
            family=ProxyFamily.TCP4,
            source=("192.0.2.1", 1),
            destination=("192.0.2.2", 25),
            unique_id=b"id",
            tls=ProxyTls(active=True, version="TLSv1.3"),
            checksum=True,
        ),
    ],
)
def test_haproxy_understands_our_headers(through_haproxy: Any, first: Any) -> None:
    """Also the checksum, which it verifies."""
    assert through_haproxy(V2, "accept-proxy", None, first).family is first.family


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("certificate", [True, False])
def test_haproxy_tells_of_tls(through_haproxy: Any, tmp_path: Path, certificate: bool) -> None:
    pem, key, chain = tmp_path / "all.pem", tmp_path / "key.pem", tmp_path / "chain.pem"
    subprocess.run(
        [*NEW_CERTIFICATE, "-keyout", str(key), "-out", str(chain)],
        check=True,
        capture_output=True,
    )
    pem.write_bytes(chain.read_bytes() + key.read_bytes())
    context = ssl.create_default_context(cafile=str(chain))
    context.check_hostname = False
    if certificate:
        context.load_cert_chain(chain, key)
    header = through_haproxy(V2, f"ssl crt {pem} ca-file {chain} verify optional", context)
    tls = header.tls
    assert header.authority == "mx.example"
    assert tls.active and tls.verified is tls.certificate is certificate
    assert tls.version.startswith("TLSv1.")
    assert tls.common_name == ("client.example" if certificate else None)
    assert (tls.signature, tls.key) == ("RSA-SHA256", "RSA2048")
    assert tls.cipher and header.checksum
