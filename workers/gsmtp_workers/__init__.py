"""Preforked gevent worker processes for any socket protocol. Knows nothing of mail.

A `Plan` says what to bind, how many workers to keep and which factory makes the service;
`gsmtp_workers.master.run` does it. In each worker process `gsmtp_workers.worker` calls `factory(worker, argument)`,
which returns one `handle(socket, address)` for each listener. The walk: plan -> sockets -> master -> child
-> (fork, exec) -> __main__ -> worker -> accept.

This module stays light: it is imported before gevent's monkey patch, so neither it nor plan.py may import
gevent, ssl, threading or queue.
"""

from gsmtp_workers.plan import BindError, BootError, Listener, Plan, PlanError

__all__ = ["BindError", "BootError", "Listener", "Plan", "PlanError"]
