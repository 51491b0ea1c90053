"""Packaging of gsmtp; the build system and the tools' settings stand in pyproject.toml."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from setuptools import find_packages, setup

HERE = Path(__file__).parent
# With GSMTP_COMPILE=1 in the environment these become machine code (docs/performance.rst): what runs for each command
# or message, and is neither subclassed nor written to by handlers. It needs a C compiler and Python's headers.
# No class in them may derive from one of io's: from Python 3.12 on such a module compiles, but cannot be imported.
COMPILE = os.environ.get("GSMTP_COMPILE", "0") == "1"
COMPILED = [
    *(f"gsmtp/protocol/{name}.py" for name in ("address", "framing")),
    *(f"gsmtp/protocol/server/{name}.py" for name in ("chunking", "events", "greeting", "session", "transaction")),
    "gsmtp/protocol/server/transitions.py",
    "gsmtp/net/gevent_transport.py",
    *(f"gsmtp/server/{name}.py" for name in ("connection", "content", "dispatcher", "message", "received", "runner")),
    *(f"gsmtp/server/{name}.py" for name in ("spool", "timeouts")),
    "gsmtp/storage/store.py",
]
_found = re.search(r'^__version__ = "([^"]+)"', (HERE / "gsmtp" / "__init__.py").read_text(), re.M)
assert _found is not None
VERSION = _found[1]


def extensions() -> list[Any]:
    """What mypyc makes of COMPILED; nothing when only facts about the package are asked for.

    With those pip learns that mypyc is needed, so it is not there yet.
    """
    if not COMPILE or {"egg_info", "dist_info"} & set(sys.argv):
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise SystemExit("GSMTP_COMPILE=1 needs mypy, which is not installed") from None
    # What the modules import need not be there to compile them.
    quiet = ["--follow-imports=silent", "--ignore-missing-imports"]
    level = os.environ.get("MYPYC_OPT_LEVEL", "3")  # the C compiler's; 0 is for who wants to have it soon
    found: list[Any] = mypycify([*quiet, *COMPILED], group_name="gsmtp", debug_level="0", opt_level=level)
    return found


setup(
    name="gsmtp",
    version=VERSION,
    description="gunicorn for mail: a preforking gevent SMTP server that hands mail to your Python class",
    long_description=(HERE / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="BSD-2-Clause",
    python_requires=">=3.11",
    setup_requires=["mypy>=1.10"] if COMPILE else [],
    ext_modules=extensions(),
    # The folder is `workers`, as it says what is in it; the import name must not be, for users have such packages.
    packages=[*find_packages(include=["gsmtp", "gsmtp.*"]), *find_packages("workers")],
    package_dir={"gsmtp_workers": "workers/gsmtp_workers"},
    package_data={"gsmtp": ["py.typed"], "gsmtp_workers": ["py.typed"]},
    install_requires=["gevent>=24.2", "psutil>=5.9", "dnspython>=2.6"],
    extras_require={
        "mime": ["pybase64>=1.3"],
        "dkim": ["cryptography>=41"],
        "idna": ["idna>=3.4"],
        "proctitle": ["setproctitle>=1.3"],
        "soak": ["matplotlib>=3.8", "tqdm>=4.66", "cryptography>=42", "psutil>=7.2"],
        "test": [
            "setuptools>=70.1",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "idna>=3.4",
            "ruff>=0.6",
            "mypy>=1.10",
            "types-psutil>=5.9",
            "scramp>=1.4",
            "pybase64>=1.3",
            "cryptography>=42",
            "dkimpy>=1.1",
            "PyNaCl>=1.5",
            "matplotlib>=3.8",
            "tqdm>=4.66",
            "types-tqdm>=4.66",
            "scipy>=1.11",
            "psutil>=7.2",
            "setproctitle>=1.3",
        ],
        "benchmark": ["aiosmtpd>=1.4.6", "uvloop>=0.19"],
    },
    entry_points={"console_scripts": ["gsmtp-master=gsmtp.cli:main", "gsmtp-soak=gsmtp.soak.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Communications :: Email :: Mail Transport Agents",
        "Typing :: Typed",
    ],
)
