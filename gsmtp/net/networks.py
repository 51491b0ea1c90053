"""Sets of clients by address: trusted proxies, XCLIENT peers, clients exempt from limits.

An IPv4 address is matched by IPv4 networks however it is written: ::ffff:192.0.2.1 is 192.0.2.1. A text that is not an
address is in no set. The word "unix" stands for all clients of unix sockets. Note that "::/0" has no IPv4 address in
it; everybody is ["0.0.0.0/0", "::/0", "unix"].
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv6Network, ip_network

from gsmtp.socket_address import parse_host

UNIX = "unix"
# Results are kept for so many addresses, because parsing one takes longer than the rest. 4096 take some 500 KiB.
_REMEMBERED = 4096


class Networks:
    """A set of networks. `address in networks` takes a socket address, its host alone, or a unix socket's path.

    It is true if it has any network. `texts` are networks such as "192.0.2.0/24", single addresses, or "unix". Raises
    ValueError, which quotes the text, for anything else.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._texts = tuple(texts)
        self._unix = False
        # By version: (network as a number, mask as a number)
        self._networks: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        self._answers: dict[str, bool] = {}
        for text in self._texts:
            if text == UNIX:
                self._unix = True
                continue
            try:
                network = ip_network(text)
            except ValueError as error:
                raise ValueError(f"no network, address or {UNIX!r}: {error}") from None
            if isinstance(network, IPv6Network) and network.prefixlen >= 96:
                mapped = network.network_address.ipv4_mapped
                if mapped is not None:
                    network = ip_network((mapped, network.prefixlen - 96))
            self._networks[network.version].append((int(network.network_address), int(network.netmask)))

    def __bool__(self) -> bool:
        """Whether any address can be in the set."""
        return bool(self._texts)

    def __repr__(self) -> str:
        return f"Networks({list(self._texts)!r})"

    def __contains__(self, address: object) -> bool:
        if isinstance(address, tuple):
            host = address[0] if address else None
        elif isinstance(address, str | bytes) and address[:1] in ("", "/", "\0", b"", b"\0"):
            return self._unix  # bytes: an abstract socket's name
        else:
            host = address
        if not isinstance(host, str):
            return False
        answer = self._answers.get(host)
        if answer is None:
            if len(self._answers) >= _REMEMBERED:
                self._answers.clear()
            answer = self._answers[host] = self._match(host)
        return answer

    def _match(self, host: str) -> bool:
        address = parse_host(host)
        if address is None:
            return False
        number = int(address)
        return any(number & mask == network for network, mask in self._networks[address.version])
