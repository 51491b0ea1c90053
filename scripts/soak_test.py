#!/usr/bin/env python3
"""The soak from a fresh checkout: makes .venv if needed and runs gsmtp-soak in it. See scripts/soak_test.py --help."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    if Path(sys.prefix).parent != ROOT:
        made = subprocess.run([ROOT / "scripts" / "venv", "soak"], check=False, stdout=subprocess.PIPE, text=True)
        if made.returncode:
            sys.exit(2)
        python = str(ROOT / made.stdout.strip() / "bin" / "python")
        os.execv(python, [python, __file__, *sys.argv[1:]])
    from gsmtp.soak.cli import main

    sys.exit(main())
