"""gsmtp/handlers/boxes.py: no address leads out of the root, no two share a box."""

from __future__ import annotations

import os
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gsmtp.handlers.boxes import Boxes, encode

TEMPLATES = [
    "/m/{domain}/{local}",
    "/m/{address}",
    "/m/x-{local}@{domain}.box/Mail",
    "m/{local}/{domain}/",
    "{address}",
]
LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# Octets that have done harm, and all the rest of Unicode, lone surrogates too.
hostile = st.text(st.sampled_from("/.\\\0%_@-~ aAzZ019\n\r\t:*?[{}é\u0301\u202e\u212a\ud800")) | st.text(
    st.characters(codec=None, exclude_categories=())
)


@given(hostile, st.integers(80, 255))
def test_encode(value: str, limit: int) -> None:
    encoded = encode(value, limit)
    assert 1 <= len(encoded) <= limit
    assert set(encoded) <= set(string.ascii_lowercase + string.digits + "._+=-%")
    assert encoded[0] not in ".-+="
    assert encoded == encode(value.translate(LOWER), limit) == encode(value, limit)


@given(hostile, hostile)
def test_encode_is_injective_up_to_case(one: str, two: str) -> None:
    assert (encode(one) == encode(two)) == (one.translate(LOWER) == two.translate(LOWER))


@given(st.sampled_from(TEMPLATES), hostile, hostile, hostile, hostile)
def test_boxes_are_apart_and_inside(template: str, local: str, domain: str, local2: str, domain2: str) -> None:
    boxes = Boxes(template)
    path = boxes.path(local, domain)
    assert os.path.normpath(path) == path.rstrip("/")
    inside = os.path.abspath(boxes.root).rstrip("/") + "/"
    assert os.path.abspath(path).startswith(inside)
    assert all(0 < len(os.fsencode(name)) <= 255 for name in path.strip("/").split("/"))
    same = (local.translate(LOWER), domain.translate(LOWER)) == (
        local2.translate(LOWER),
        domain2.translate(LOWER),
    )
    assert (path == boxes.path(local2, domain2)) == same


@pytest.mark.parametrize(
    ("template", "local", "domain", "path"),
    [
        ("maildir", "any", "x.example", "maildir"),
        ("/m/box/", "any", "x.example", "/m/box"),
        ("/", "any", "x.example", "/"),
        ("/m/{domain}", "any", "x.example", "/m/x.example"),
        ("/m/{domain}/{local}", "Ann.Lee+tag", "x.example", "/m/x.example/ann.lee+tag"),
        ("/m/{domain}/{local}", "postmaster", "", "/m/%/postmaster"),
        ("/m/{address}", "Ann", "x.example", "/m/ann@x.example"),
        ("/m/{address}", "../../etc/passwd", "x.example", "/m/%2e.%2f..%2fetc%2fpasswd@x.example"),
        ("/m/{local}", "..", "x", "/m/%2e."),
        ("/m/{local}", "a\0b%", "x", "/m/a%00b%25"),
        ("/m/.{local}", "-rf", "x", "/m/.%2drf"),
        ("/m/{local}", "é", "x", "/m/%c3%a9"),
        ("/m/{{{local}}}", "a", "x", "/m/{a}"),
    ],
)
def test_paths(template: str, local: str, domain: str, path: str) -> None:
    assert Boxes(template).path(local, domain) == path


def test_normal_forms_stay_apart() -> None:
    forms = {encode(unicodedata.normalize(form, "é")) for form in ("NFC", "NFD")}
    assert len(forms) == 2


def test_long_values_stay_apart() -> None:
    values = [encode("a" * n) for n in (254, 255, 256, 257, 100_000)]
    assert [len(value) for value in values] == [254, 255, 255, 255, 255]
    assert len(set(values)) == 5
    assert "%_" in values[2]
    # The digest of a shortened value, spelt out, is not that value.
    assert encode(values[2]) != values[2]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("", "empty"),
        ("/m/\0", "NUL"),
        ("/m/{user}", "placeholder"),
        ("/m/{}", "placeholder"),
        ("/m/{0}", "placeholder"),
        ("/m/{local!r}", "placeholder"),
        ("/m/{local:>10}", "placeholder"),
        ("/m/{local.__class__}", "placeholder"),
        ("/m/{local", "template"),
        ("/m/local}", "template"),
        ("/m/{local}{domain}", "share"),
        ("/m/{local}-{domain}", "share"),
        ("/m/{local}AND{domain}", "share"),
        ("/m/" + "x" * 200 + "{local}", "80 octets"),
    ],
)
def test_bad_templates(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        Boxes(template)
    assert "\n" not in str(caught.value)
