"""The server's counters: each is declared here once, and is then on the scoreboard under its name.

Whoever counts increments an attribute of the worker's `Counters`; the worker copies all of them to its row of the
scoreboard twice a second. Must stay light: the master and readers of the scoreboard import it too.
"""

from __future__ import annotations

from dataclasses import dataclass

from gsmtp_workers.columns import columns_of, counter, gauge


@dataclass(slots=True)
class Counters:
    """The counters of one worker. A `counter` only grows, a `gauge` is the present value."""

    transactions: int = gauge("sessions in a mail transaction")
    committing: int = gauge("messages in the handler's on_message or on_data")
    messages: int = counter("messages accepted")
    octets: int = counter("octets of the messages accepted")
    refused: int = counter("messages refused after their content")


COLUMNS = columns_of(Counters)
