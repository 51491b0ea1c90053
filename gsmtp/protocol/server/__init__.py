"""The receiving end of SMTP and LMTP as a state machine without I/O. session.py is where to begin reading."""
