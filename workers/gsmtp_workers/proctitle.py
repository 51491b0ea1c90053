"""Process titles, by the library setproctitle where that is installed (the extra `proctitle`)."""

from __future__ import annotations


def set_title(title: str) -> None:
    """Show `title` as this process' command line in ps and top. Do nothing without the library."""
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    setproctitle(title)
