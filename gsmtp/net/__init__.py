"""Connections, for both roles: transports in clear and under TLS, the deadline timer, errors, sets of networks."""
