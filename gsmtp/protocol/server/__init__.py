"""The receiving end of SMTP and LMTP as a state machine without I/O; see session.py."""
