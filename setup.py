"""Packaging of gsmtp; the build system and the tools' settings stand in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
_found = re.search(r'^__version__ = "([^"]+)"', (HERE / "gsmtp" / "__init__.py").read_text(), re.M)
assert _found is not None
VERSION = _found[1]

setup(
    name="gsmtp",
    version=VERSION,
    description="gunicorn for mail: a preforking gevent SMTP server that hands mail to your Python class",
    long_description=(HERE / "README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="BSD-2-Clause",
    python_requires=">=3.11",
    packages=find_packages(include=["gsmtp", "gsmtp.*", "workers", "workers.*"]),
    package_data={"gsmtp": ["py.typed"], "workers": ["py.typed"]},
    install_requires=["gevent>=24.2", "psutil>=5.9", "dnspython>=2.6"],
    extras_require={
        "mime": ["pybase64>=1.3"],
        "dkim": ["cryptography>=41"],
        "soak": ["matplotlib>=3.8", "tqdm>=4.66", "cryptography>=42", "psutil>=7.2"],
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
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
            "psutil>=7.2",
        ],
        "benchmark": ["aiosmtpd>=1.4.6", "uvloop>=0.19"],
    },
    entry_points={"console_scripts": ["gsmtp-master=gsmtp.cli:main", "gsmtp-soak=gsmtp.soak.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "License :: OSI Approved :: BSD License",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Topic :: Communications :: Email :: Mail Transport Agents",
        "Typing :: Typed",
    ],
)
