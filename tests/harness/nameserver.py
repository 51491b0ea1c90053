"""A DNS server of one zone, which lies, is silent, and cuts its answers off, as it is told to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping, Sequence

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Zone = Mapping[tuple[str, str], Sequence[str] | str]


class NameServer:
    """It answers on 127.0.0.1, by UDP and TCP, from a zone: by name and kind, lists of records as text, or one of

    "silence"   no answer.
    "garbage"   an answer that cannot be read.
    "failure"   SERVFAIL; "bogus" the same with the reason that DNSSEC validation failed.
    `asked` has the questions, with the transport of each. More than ten records do not go into one answer by UDP.
    Without `edns` a query that has it is answered FORMERR. `soa` is the minimum TTL of negative answers, None for
    answers without an SOA.
    """

    def __init__(
        self,
        zone: Zone,
        tcp: bool = True,
        ttl: int = 300,
        soa: int | None = None,
        authenticated: bool = False,
        edns: bool = True,
    ):
        self.asked: list[tuple[str, str, str]] = []
        self.queries: list[dns.message.Message] = []
        self._zone = zone
        self._ttl = ttl
        self._soa = soa
        self._authenticated = authenticated
        self._edns = edns
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._tcp = socket.socket()
        while True:  # the same port for both
            self._udp.bind(("127.0.0.1", 0))
            self.port = self._udp.getsockname()[1]
            try:
                self._tcp.bind(("127.0.0.1", self.port))
                break
            except OSError:
                self._udp.close()
                self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        work = [self._serve_udp]
        if tcp:
            self._tcp.listen()
            work.append(self._serve_tcp)
        self._threads = [threading.Thread(target=each, daemon=True) for each in work]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", ("127.0.0.1", self.port))
        self._tcp.shutdown(socket.SHUT_RDWR) if len(self._threads) > 1 else None
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._udp.close()
        self._tcp.close()

    def _serve_udp(self) -> None:
        while True:
            data, client = self._udp.recvfrom(4096)
            if data == b"end":
                return
            answer = self._answer(data, "udp")
            if answer is not None:
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                head = connection.recv(2, socket.MSG_WAITALL)
                data = connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                answer = self._answer(data, "tcp")
                assert answer is not None
                connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(data)
        [question] = query.question
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        self.queries.append(query)
        if query.edns >= 0 and not self._edns:
            plain = dns.message.from_wire(data)
            plain.use_edns(False)
            refusal = dns.message.make_response(plain)
            refusal.set_rcode(dns.rcode.FORMERR)
            return refusal.to_wire()
        found = self._zone.get((name, kind))
        if found == "silence":
            return None
        if found == "garbage":
            return data[:2] + b"\xff" * 20
        response = dns.message.make_response(query)
        if found in ("failure", "bogus"):
            response.set_rcode(dns.rcode.SERVFAIL)
            if found == "bogus":
                response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.DNSSEC_BOGUS)])
            return response.to_wire()
        if self._authenticated:
            response.flags |= dns.flags.AD
        alias = self._zone.get((name, "CNAME"))
        if alias:
            response.answer.append(dns.rrset.from_text(name, self._ttl, "IN", "CNAME", *alias))
            name = alias[0]
            found = self._zone[name, kind]
        if found:
            response.answer.append(dns.rrset.from_text(name, self._ttl, "IN", kind, *found))
        elif not any(name == known for known, _ in self._zone):
            response.set_rcode(dns.rcode.NXDOMAIN)
        if not found and self._soa is not None:
            soa = f"ns.example. admin.example. 1 2 3 4 {self._soa}"
            response.authority.append(dns.rrset.from_text(".", self._ttl, "IN", "SOA", soa))
        if transport == "udp" and found and len(found) > 10:
            response.answer.clear()
            response.flags |= dns.flags.TC
        return response.to_wire(max_size=65535)
