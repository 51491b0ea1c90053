"""One mail per rule of the decoder: the file is named after what it shows, expected.json has the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gsmtp import mime

FIXTURES = Path(__file__).parent / "fixtures"
EXPECTED: dict[str, dict[str, Any]] = json.loads((FIXTURES / "expected.json").read_text("utf-8"))


def plain(items: list[Any]) -> list[Any]:
    return [
        [item.name, [list(member) for member in item.members]] if isinstance(item, mime.Group) else list(item)
        for item in items
    ]


def leaves(message: mime.Message) -> list[mime.Part]:
    return [part for part in message.walk() if not part.parts and part.message is None]


def reported(found: mime.DeliveryReport | mime.DispositionReport | None) -> list[Any]:
    if isinstance(found, mime.DeliveryReport):
        recipients = [[each.final_recipient, each.action, each.status] for each in found.recipients]
        return ["DeliveryReport", found.reporting_mta, *recipients, found.original and found.original.subject]
    assert found is not None
    return ["DispositionReport", found.final_recipient, found.original_message_id, found.type]


ANSWERS: dict[str, Callable[[Any], object]] = {
    "subject": lambda m: m.subject,
    "text": lambda m: m.text,
    "html": lambda m: m.html,
    "from": lambda m: list(m.from_),
    "to": lambda m: plain(m.to),
    "date": lambda m: m.date and m.date.isoformat(),
    "charset": lambda m: m.charset,
    "smtputf8": lambda m: m.needs_smtputf8,
    # an attached message is walked as its part, then as itself
    "types": lambda m: [part.content_type for part in m.walk()],
    "contents": lambda m: [part.content.decode("latin-1") for part in leaves(m)],
    "attachments": lambda m: [part.content_type for part in m.attachments],
    "filenames": lambda m: [part.filename for part in m.walk() if part.filename],
    "safe": lambda m: [part.safe_filename for part in m.walk()],
    "inner": lambda m: next(part.message.subject for part in m.walk() if part.message),
    "report": lambda m: reported(mime.report(m)),
    "defects": lambda m: sorted({defect.code for defect in m.defects}),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_fixture(name: str) -> None:
    message = mime.decode((FIXTURES / f"{name}.eml").read_bytes())
    expected = dict(EXPECTED[name])
    for header, values in expected.pop("all", {}).items():
        assert message.headers.get_all(header) == values
    assert {key: ANSWERS[key](message) for key in expected} == expected


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_strict_raises_the_first_defect(name: str) -> None:
    raw = (FIXTURES / f"{name}.eml").read_bytes()
    if not EXPECTED[name]["defects"]:
        assert mime.decode(raw, strict=True).raw == raw
        return
    first = mime.decode(raw).defects[0]
    with pytest.raises(mime.MimeError) as caught:
        mime.decode(raw, strict=True)
    assert (caught.value.code, caught.value.offset) == (first.code, first.offset)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_unchanged_mail_is_written_as_it_came(name: str) -> None:
    raw = (FIXTURES / f"{name}.eml").read_bytes()
    message = mime.decode(raw)
    list(message.walk())
    assert mime.encode(message) == raw
    assert message.raw_headers + message.raw_body == raw


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_open_gives_the_content(name: str) -> None:
    for part in mime.decode((FIXTURES / f"{name}.eml").read_bytes()).walk():
        with part.open() as stream:
            assert stream.read() == part.content


def test_every_fixture_is_expected_and_every_defect_has_one() -> None:
    assert {path.stem for path in FIXTURES.glob("*.eml")} == set(EXPECTED)
    shown = {code for expected in EXPECTED.values() for code in expected["defects"]}
    # Limits and uuencode without a beginning are shown in test_mime_limits.py.
    assert set(mime.CODES) - shown == {
        "too_many_headers", "headers_too_long", "too_many_parameters", "too_deep", "too_many_parts",
        "too_many_encoded_words", "too_many_addresses", "too_many_defects", "bad_uuencode",
    }  # fmt: skip
