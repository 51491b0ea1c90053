"""Durable files: `store` is for the event loop, `writer` is the process that writes them."""

from gsmtp.storage.store import Delivery, Store
from gsmtp.storage.writer import copy_file, sync_directory, write_all

__all__ = ["Delivery", "Store", "copy_file", "sync_directory", "write_all"]
