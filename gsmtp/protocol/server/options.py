"""What one listener's sessions may do: a frozen value that all its sessions share and none can change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from gsmtp.protocol.framing import BareNewlines


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of the protocol. Sizes in octets; 0 means no limit where a limit may be absent."""

    hostname: str
    banner: str = "ESMTP gsmtp"
    max_message_size: int = 36_700_160
    max_recipients: int = 1000
    max_recipient_overshoot: int = 1000
    max_line_length: int = 12_290
    max_content_line_length: int = 0
    max_errors: int = 20
    max_idle_commands: int = 100
    max_transactions: int = 10_000
    allow_bare_newlines: BareNewlines = "reject"
    lenient_addresses: bool = False
    tls: Literal["never", "offered", "required"] = "never"
    auth: Literal["never", "offered", "required"] = "never"
    auth_hooks: frozenset[str] = frozenset()
    auth_without_tls: bool = False
    auth_secret: bytes = field(default=bytes(16), repr=False)
    scram_iterations: int = 4096
    scram_stored_keys: bool = False
    max_auth_failures: int = 3
    lmtp: bool = False
    hide: frozenset[str] = frozenset()
    offer: frozenset[str] = frozenset()
    min_deliver_by: int = 0
    priority_profile: str = ""
