"""All questions a mail can be asked, for the tests that want none of them to raise or to be slow."""

from __future__ import annotations

from gsmtp import mime


def ask_all(message: mime.Message) -> list[object]:
    """Every public property of the mail and its parts, once."""
    answers: list[object] = [
        message.subject, message.from_, message.sender, message.to, message.cc, message.reply_to,
        message.date, message.message_id, message.references, message.in_reply_to, message.recipients,
        len(message.text or ""), len(message.html or ""), message.needs_smtputf8,
        list(message.headers.items()), mime.report(message),
    ]  # fmt: skip
    for part in message.walk():
        answers += [
            part.content_type, part.params, part.charset, part.disposition, part.filename, part.safe_filename,
            part.content_id, part.encoding, part.is_multipart, len(part.content), len(part.text or ""),
        ]  # fmt: skip
    for part in message.attachments:
        with part.open() as stream:
            answers.append(len(stream.read(1_000_000)))
    return answers
