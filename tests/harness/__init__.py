"""What the tests share: a gsmtp-master in processes of its own, an SMTP client, and the servers of others.

waiting      Waits for a condition, with a limit.
client       The tests' SMTP client. Tests of a whole server use it, but for those that send what is no SMTP, so that a
             client of gsmtp's own can replace this one file.
config       Starts a master that has a settings file, for several listeners.
master       Starts gsmtp-master, reads its log, ends it and finds what is left of it.
messages     Reads what the handlers of the tests have stored.
nameserver   A DNS server of one zone.
tables       Makes tables of limits in one process.
transports   Transports of both kinds, and a peer in a thread of its own.
replies      Finds the replies that stand in gsmtp's source.
soak         Soaks that last seconds.
postfix, dovecot
             A Postfix and a Dovecot of the test's own.
"""
