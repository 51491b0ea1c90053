"""Preforked gevent worker processes for any socket protocol. Knows nothing of mail.

A `Plan` says which roles there are, what they listen on, how many processes they have and which factory makes the
service; `gsmtp_workers.master.run` serves it. In each worker process `factory(worker, argument)` returns one
`handle(socket, address)` for each listener.

The way from plan to session: plan -> generation (binds by sockets) -> master -> pool -> process -> fork and exec with
config -> __main__ -> main -> worker -> accept.

This module stays light: it is imported before gevent's monkey patch, so neither it nor plan.py and columns.py may
import gevent, ssl, threading or queue.
"""

from gsmtp_workers.columns import Column, Kind
from gsmtp_workers.plan import BindError, BootError, Listener, Plan, PlanError, Role

__all__ = ["BindError", "BootError", "Column", "Kind", "Listener", "Plan", "PlanError", "Role"]
