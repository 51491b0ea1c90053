"""The soak: real mail traffic against a real server, and a verdict on its memory."""
