"""Addresses and credentials that the soak's clients use and its handler understands."""

USER, PASSWORD = "soak", "a good password"

SENDER = "user@client.example"
RECIPIENT = "box@here.example"
# Local parts for which a hook of the soak's handler fails.
RAISES = "raises"  # on_mail and on_rcpt raise an exception
RAISES_LATER = "raises.later"  # on_message raises an exception
UNKNOWN = "unknown"  # on_rcpt refuses the recipient
SLEEPS = "sleeps"  # on_rcpt does not return before its deadline
