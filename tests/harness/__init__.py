"""What the tests share: a gsmtp-master in processes of its own, an SMTP client, and the servers of others.

waiting      Waits for a condition, with a limit.
client       The tests' SMTP client. No other file of the tests writes SMTP by hand to a server that is tested as a
             whole, so that a client of gsmtp's own can replace this one file.
config       Starts a master that has a settings file, for several listeners.
master       Starts gsmtp-master, reads its log, ends it and finds what is left of it.
messages     Reads what the handlers of the tests have stored.
tables       Makes tables of limits in one process.
replies      Finds the replies that stand in gsmtp's source.
soak         Soaks that last seconds.
postfix, dovecot
             A Postfix and a Dovecot of the test's own.
"""
