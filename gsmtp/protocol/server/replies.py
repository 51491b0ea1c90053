"""The replies that the protocol itself gives, by name. A reply with a changing text is made by its verb."""

from __future__ import annotations

from gsmtp.protocol.framing import ContentFault, LineFault
from gsmtp.reply import Reply

OK = Reply(250, "2.0.0", "Ok")
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
ACCEPTED = Reply(250, "2.0.0", "Message accepted")
BYE = Reply(221, "2.0.0", "Bye")
HELP = Reply(214, "2.0.0", "Commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY EXPN HELP QUIT\nSee RFC 5321")
CANNOT_VERIFY = Reply(252, "2.0.0", "Cannot verify, but will take mail and try to deliver it")
NO_EXPN = Reply(502, "5.5.1", "EXPN is not offered")
UNKNOWN = Reply(500, "5.5.1", "Command not recognized")
NOT_UTF8 = Reply(500, "5.5.2", "Neither ASCII nor UTF-8")
NO_ARGUMENT = Reply(501, "5.5.4", "This command takes no argument")
MAIL_SYNTAX = Reply(501, "5.5.4", "Syntax: MAIL FROM:<address>")
RCPT_SYNTAX = Reply(501, "5.5.4", "Syntax: RCPT TO:<address>")
HELLO_FIRST = Reply(503, "5.5.1", "Say EHLO or HELO first")
MAIL_FIRST = Reply(503, "5.5.1", "MAIL first")
NESTED_MAIL = Reply(503, "5.5.1", "A transaction is open: finish it, or RSET")
NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
LMTP_NO_RECIPIENTS = Reply(503, "5.5.1", "No valid recipients")
LHLO_ONLY = Reply(500, "5.5.1", "This is LMTP: say LHLO")
NOT_LMTP = Reply(500, "5.5.1", "This is not LMTP: say EHLO")
READY_FOR_TLS = Reply(220, "2.0.0", "Ready to start TLS")
TLS_ACTIVE = Reply(503, "5.5.1", "TLS is active already")
TLS_REQUIRED = Reply(530, "5.7.0", "Must issue a STARTTLS command first")
AUTH_REQUIRED = Reply(530, "5.7.0", "Authentication required")
BDAT_NO_RECIPIENTS = Reply(503, "5.5.1", "No valid recipients")
BDAT_SYNTAX = Reply(501, "5.5.4", "Syntax: BDAT octets [LAST]")
BDAT_LOST = Reply(421, "4.5.0", "Where the next command begins cannot be known, closing connection")
NO_CHUNKING = Reply(502, "5.5.1", "BDAT is not offered")
BINARY_NEEDS_BDAT = Reply(503, "5.5.1", "BODY=BINARYMIME is sent by BDAT")
CHUNKS_BEGUN = Reply(503, "5.5.1", "The message has begun: send its last BDAT, or RSET")
NESTED_AUTH = Reply(503, "5.5.1", "Not within a transaction")
AUTHENTICATED = Reply(235, "2.7.0", "Authentication successful")
AUTHENTICATED_ALREADY = Reply(503, "5.5.1", "Authenticated already")
AUTH_SYNTAX = Reply(501, "5.5.4", "Syntax: AUTH mechanism [initial-response]")
AUTH_CANCELLED = Reply(501, "5.7.0", "Authentication cancelled")
AUTH_NEEDS_TLS = Reply(538, "5.7.11", "Encryption required: STARTTLS first")
NO_SUCH_MECHANISM = Reply(504, "5.5.4", "Mechanism not offered")
TOO_MANY_AUTH_FAILURES = Reply(421, "4.7.0", "Too many failed attempts")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "Address is not ASCII and SMTPUTF8 was not asked for")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients, send the others in another transaction")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
TOO_MANY_COMMANDS = Reply(421, "4.7.0", "Too many commands without mail")
TOO_MANY_TRANSACTIONS = Reply(421, "4.7.0", "Too many transactions in one connection, connect again")
LINE_FAULTS = {
    LineFault.TOO_LONG: Reply(500, "5.5.2", "Line too long"),
    LineFault.ENDLESS: Reply(421, "4.7.0", "Line without end"),
    LineFault.BARE_NEWLINE: Reply(500, "5.5.2", "Bare CR or LF: lines end with CRLF"),
}
# RFC 4954 4 and 6: a line of an exchange that is too long has a code of its own.
AUTH_LINE_FAULTS = {**LINE_FAULTS, LineFault.TOO_LONG: Reply(500, "5.5.6", "Authentication exchange line too long")}
CONTENT_FAULTS = {
    ContentFault.TOO_LARGE: Reply(552, "5.3.4", "Message too large"),
    ContentFault.LINE_TOO_LONG: Reply(554, "5.6.0", "Line too long in message"),
    ContentFault.BARE_NEWLINE: Reply(554, "5.6.0", "Bare CR or LF in message: lines end with CRLF"),
}
