"""Ask for names as a worker does, in a process that is patched. One JSON object in, one out, see `main`."""

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402

from gsmtp.dns.cache import Cache, CacheSettings  # noqa: E402
from gsmtp.dns.nameservers import NameServers  # noqa: E402
from gsmtp.dns.resolver import Resolver  # noqa: E402
from gsmtp.server.reverse_dns import ClientName, ReverseDns  # noqa: E402


def shown(name: ClientName | None) -> list[object] | None:
    return None if name is None else [name.name, name.verified]


def make(nameservers: list[str], timeout: float, entries: int = 4096, max_lookups: int = 256) -> ReverseDns:
    cache = Cache(CacheSettings(entries=entries))
    return ReverseDns(Resolver(NameServers(nameservers, timeout / 2), timeout, cache), timeout, max_lookups)


def main() -> None:
    """In: options (of `make`), rounds (lists of hosts asked for at once), abandon (hosts whose waiter is killed).

    Out: rounds (what was answered), ready (which were known at once), longest (seconds in which the event loop did
    not come round), started (seconds that starting the lookups took), and jobs and known: what is left.
    """
    order = json.loads(sys.stdin.read())
    names = make(**order["options"])
    longest = 0.0

    def watch() -> None:
        nonlocal longest
        while True:
            before = time.monotonic()
            gevent.sleep(0.005)
            longest = max(longest, time.monotonic() - before)

    watcher = gevent.spawn(watch)
    rounds, ready = [], []
    began = time.monotonic()
    for host in order.get("abandon", []):
        waiter = gevent.spawn(names.lookup, (host, 25))
        gevent.sleep(0.05)
        waiter.kill()
    started = 0.0
    for hosts in order["rounds"]:
        before = time.monotonic()
        lookups = [names.start((host, 25) if host else host) for host in hosts]
        started = max(started, time.monotonic() - before)
        ready.append([lookup.ready for lookup in lookups])
        rounds.append([shown(lookup.wait()) for lookup in lookups])
        assert all(lookup.ready for lookup in lookups)
    watcher.kill()
    print(
        json.dumps(
            {
                "rounds": rounds,
                "ready": ready,
                "longest": longest,
                "started": started,
                "seconds": time.monotonic() - began,
                "jobs": len(names._jobs),
                "known": len(names._resolver.cache),
            }
        )
    )


main()
