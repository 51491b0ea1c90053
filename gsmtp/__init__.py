"""gsmtp: gunicorn for mail. Subclass `Handler`, run `gsmtp-master module:Class`."""

__version__ = "0.1.0"
