"""What clients say and the soak's handler understands: addresses by which a hook goes wrong, and a user."""

USER, PASSWORD = "soak", "a good password"

SENDER = "user@client.example"
RECIPIENT = "box@here.example"
# Local parts. The first raises at MAIL and RCPT, the second when the message is there.
RAISES, RAISES_LATER = "raises", "raises.later"
UNKNOWN = "unknown"  # refused at RCPT
SLEEPS = "sleeps"  # does not come back before its deadline
