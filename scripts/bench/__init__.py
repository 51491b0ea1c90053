"""The parts of `scripts/benchmark.py`, in the order of their imports, from below.

    smtpclient  an SMTP client in several processes, for what smtp-source cannot do; a program by itself
    processes   start a server, measure its process tree, stop it; knows no SMTP beyond the banner
    servers     what is compared: gsmtp, its peers, and loops to compare them with
    tlsservers  the same under TLS
    entries     the table of them
    workloads   the table of what is done to them, and what is measured meanwhile
    rounds      the order of measurements, and medians of ratios taken within a round
    report      results as text, as RST, as JSON

To compare one more server add a class to `servers.py` and name it in `entries.py`; to measure one more thing add an
object to `WORKLOADS` in `workloads.py`. The other files need no change.
"""
