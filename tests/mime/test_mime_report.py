"""Delivery and disposition reports."""

from __future__ import annotations

from datetime import UTC, datetime

from gsmtp import mime

DSN = b"""\
From: mailer@example.com
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.com
Arrival-Date: Mon, 1 Jan 2024 12:00:00 +0000
Original-Envelope-Id: QQ314159

Original-Recipient: rfc822;ann@example.org
Final-Recipient: rfc822; ann@example.org
Action: Failed
Status: 5.1.1 (no such user)
Remote-MTA: dns; mx.example.org
Diagnostic-Code: smtp; 550 5.1.1
 no such user

Final-Recipient: rfc822; bob@example.org
Action: delayed
Status: 4.4.1
Will-Retry-Until: Tue, 2 Jan 2024 12:00:00 +0000
--b
Content-Type: text/rfc822-headers

Subject: the original
Message-ID: <1@example.com>
--b--
"""


def test_delivery_report() -> None:
    found = mime.report(mime.decode(DSN))
    assert isinstance(found, mime.DeliveryReport)
    assert (found.reporting_mta, found.envelope_id) == ("mx.example.com", "QQ314159")
    assert found.arrival == datetime(2024, 1, 1, 12, tzinfo=UTC)
    ann, bob = found.recipients
    assert (ann.final_recipient, ann.original_recipient) == ("ann@example.org", "ann@example.org")
    assert (ann.action, ann.status, ann.permanent, ann.remote_mta) == (
        "failed",
        "5.1.1",
        True,
        "mx.example.org",
    )
    assert ann.diagnostic == "550 5.1.1 no such user"
    assert (bob.action, bob.status, bob.permanent) == ("delayed", "4.4.1", False)
    assert bob.retry_until == datetime(2024, 1, 2, 12, tzinfo=UTC)
    assert found.original is not None and found.original.subject == "the original"


def test_delivery_report_without_blank_lines() -> None:
    found = mime.report(
        mime.decode(DSN.replace(b"QQ314159\n\n", b"QQ314159\n").replace(b"user\n\nFinal", b"user\nFinal"))
    )
    assert isinstance(found, mime.DeliveryReport)
    assert [item.final_recipient for item in found.recipients] == ["ann@example.org", "bob@example.org"]


def test_disposition_report() -> None:
    found = mime.report(
        mime.decode(
            b"Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b\r\n"
            b"Content-Type: message/disposition-notification\r\n\r\nReporting-UA: joe; Mailer 1\r\n"
            b"Final-Recipient: rfc822;joe@example.com\r\nOriginal-Message-ID: <1@example.com>\r\n"
            b"Disposition: manual-action/MDN-sent-manually; Displayed/error, warning\r\n--b--\r\n"
        )
    )
    assert isinstance(found, mime.DispositionReport)
    assert (found.final_recipient, found.original_message_id) == ("joe@example.com", "<1@example.com>")
    assert (found.mode, found.type, found.modifiers) == (
        "manual-action/mdn-sent-manually",
        "displayed",
        ("error", "warning"),
    )


def test_a_mail_that_is_no_report() -> None:
    assert mime.report(mime.decode(b"Subject: x\r\n\r\n")) is None
