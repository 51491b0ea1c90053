"""The soak: a real server under mail as it is in life, and a verdict on its memory and on every message.

It may import anything of gsmtp, and nothing imports it.
"""
