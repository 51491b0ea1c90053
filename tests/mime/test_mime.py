"""The package as a whole: what it imports, and what it needs."""

from __future__ import annotations

import ast
import subprocess
import sys
import tracemalloc
from pathlib import Path

import gsmtp
from gsmtp import mime

PACKAGE = Path(mime.__file__).parent


def test_the_package_stands_alone() -> None:
    """It imports nothing else of gsmtp, no gevent, and what it imports at run time it has."""
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                assert not name.startswith("gsmtp") or name.startswith("gsmtp.mime"), f"{path.name} imports {name}"
                assert not name.startswith("gevent"), f"{path.name} imports {name}"


def test_importing_it_imports_no_gevent() -> None:
    """Nor what the server stands on: it can be used in any program."""
    code = "import sys, gsmtp.mime; print(*sys.modules)"
    root = str(Path(gsmtp.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=root, timeout=60, capture_output=True, text=True
    )
    tops = {name.partition(".")[0] for name in done.stdout.split()}
    assert "gsmtp" in tops and not tops & {"gevent", "greenlet", "ssl", "asyncio", "psutil", "dns", "gsmtp_workers"}


def test_a_large_attachment_is_built_and_decoded_in_little_memory() -> None:
    content = bytes(5_000_000)
    tracemalloc.start()
    try:
        raw = mime.encode(mime.Message.build(from_="a@b.example", text="x", attachments=[("a", content)]))
        assert tracemalloc.get_traced_memory()[1] < 3 * len(content)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert mime.decode(raw).attachments[0].content == content
        assert tracemalloc.get_traced_memory()[1] - before < 2 * len(raw)
    finally:
        tracemalloc.stop()


def test_the_base64_of_the_standard_library_is_enough() -> None:
    """Without pybase64 and cryptography the same bytes come out."""
    code = (
        "import sys; sys.modules['pybase64'] = None; sys.modules['cryptography'] = None\n"
        "from gsmtp import mime\n"
        "message = mime.Message.build(from_='a@b.example', text='x', attachments=[('a', bytes(1000))])\n"
        "raw = mime.encode(message)\n"
        "assert mime.decode(raw, strict=True).attachments[0].content == bytes(1000)\n"
        "try: mime.DKIM('s', 'd.example', b'')\n"
        "except ImportError as error: assert 'gsmtp[dkim]' in str(error)\n"
    )
    root = str(Path(gsmtp.__file__).parent.parent)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
