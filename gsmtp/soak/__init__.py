"""The soak: a real server under mail as in life, and a verdict on its memory and on every message.

It stands at the top of the house, beside the command: it may import anything, and nothing imports it.
"""
