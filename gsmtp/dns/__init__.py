"""DNS lookups: one resolver for all of them, with a cache and a budget, on name servers or on records of a table.

answers      the records, answers and errors, and what a backend is
names        domain names as they are looked up and compared
cache        answers and errors, for as long as they hold
resolver     asks the cache, then the backend; the only module that most callers need beside `answers`
nameservers  the backend that asks name servers, by dnspython
static       the backend that takes its answers from a table, for tests and for programs that know them
"""
