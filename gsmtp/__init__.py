"""gsmtp: gunicorn for mail. Subclass `Handler`, run `gsmtp-master module:Class`."""

from gsmtp.handler import Handler, Message, Stream, Worker
from gsmtp.protocol.envelope import Envelope, Recipient, Session
from gsmtp.reply import Defer, Disconnect, Reject, Reply

__version__ = "0.1.0"

__all__ = [
    "Defer",
    "Disconnect",
    "Envelope",
    "Handler",
    "Message",
    "Recipient",
    "Reject",
    "Reply",
    "Session",
    "Stream",
    "Worker",
]
