"""The parts of `scripts/benchmark.py`, below it in this order of imports.

    tlsclient   a client of our own in several processes, for what smtp-source cannot do; a program by itself
    processes   start a server, measure its process tree, stop it; knows no SMTP beyond the banner
    servers     what is compared: gsmtp, its peers, and loops to hold them against
    tlsservers  the same under TLS
    entries     the table of them
    workloads   the table of what is done to them, and what is read off meanwhile
    rounds      who runs when, and medians of ratios taken within a round
    report      results as text, as RST, as JSON

To compare one more server add a class to `servers.py` and name it in `entries.py`; to measure one more thing
add an object to `WORKLOADS` in `workloads.py`. The other files need no change.
"""
