#!/usr/bin/env python3
"""The soak from a fresh checkout: makes .venv if needed and runs gsmtp-soak in it. See scripts/soak_test.py --help."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"

if __name__ == "__main__":
    if Path(sys.prefix) != ROOT / ".venv":
        made = subprocess.run([ROOT / "scripts" / "venv", "soak"], check=False)
        if made.returncode:
            sys.exit(2)
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])
    from gsmtp.soak.cli import main

    sys.exit(main())
