"""The worker process: `python -P .../gsmtp_workers/__main__.py FD`, started by the master alone.

FD is the descriptor of the worker's config. gevent's monkey patch comes before every import that it must precede: only
json, os and sys are imported earlier. The master's sys.path, which is in the config, then takes the place of this
process' own, so both find the same packages, however the master found them (a checkout, an editable install, PYTHONPATH
with relative folders). Until the worker's own modules are imported the master's folders come last, so no module of the
user's can take the place of one that they need.
"""

import json
import os
import sys

# A process that the service starts by multiprocessing imports this file again, under another name.
if __name__ == "__main__":
    try:
        fd = int(sys.argv[1])
        path = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))["path"]
    except (IndexError, ValueError, TypeError, KeyError, OSError):
        print("python -m gsmtp_workers is started by the master, not by hand", file=sys.stderr)
        sys.exit(2)
    sys.path += [entry for entry in path if entry not in sys.path]

    from gevent import monkey

    monkey.patch_all()

    from gsmtp_workers.main import main

    sys.path[:] = path
    sys.exit(main(fd))
