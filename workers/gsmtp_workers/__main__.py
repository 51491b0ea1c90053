"""The worker process: `python -P -m gsmtp_workers ...`, started by the master alone. First comes the patch."""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402

from gsmtp_workers.worker import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
