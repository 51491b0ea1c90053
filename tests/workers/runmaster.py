"""Run a master as a command line would. Prints the addresses when it is ready, at the end its modules."""

import json
import logging
import sys

from gsmtp_workers import BindError, Plan
from gsmtp_workers.master import check, run

logging.basicConfig(level=logging.INFO, format="%(message)s")
plan = Plan.from_json(sys.argv[1])
try:
    if sys.argv[2:] == ["check"]:
        status = check(plan)
    else:
        status = run(plan, lambda addresses: print(json.dumps(addresses), flush=True))
except BindError as error:
    sys.exit(str(error))
print(json.dumps(sorted(sys.modules)), flush=True)
sys.exit(status)
