"""Makes mail as it is in life; the same seed gives the same mail.

Sizes follow a distribution with a heavy tail: half of all mails are below 4 KB, one in a hundred is above 64 KB, and
one in 17,000 above 4 MB; none is above 5 MB. There are many ordinary mails and some of each stretch of the tail, whose
weights make them as rare as the distribution says. Well-formed mail is built by gsmtp.mime, malformed mail by hand.
"""

from __future__ import annotations

import base64
import itertools
import math
import random
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from statistics import NormalDist

from gsmtp import mime
from gsmtp.soak.mail import Mail

SMALLEST, MEDIAN, KNEE, LARGEST = 500, 4096, 65536, 5 * 1000 * 1000
TAIL = 0.01  # the share of mails above KNEE
SPREAD = 1.0  # the standard deviation of the size's logarithm below KNEE
STEEPNESS = 1.2  # of the tail: 0.43 times as many mails have twice the size
# A server in life meets new boundaries and parameters all the time: these are more than its cache of them holds.
ORDINARY, LARGE = 3000, 24

_PLAIN = """
the message was sent yesterday and we have not heard from you since please find enclosed our offer for next year
with kind regards meeting on Monday at ten in room four invoice number account payment due thank you very much
for your order it will leave our house tomorrow the ticket has been closed let us know whether this helps
"""
_ACCENTED = "Grüße aus Köln Zürich déjà vu façade naïve señor mañana Žluťoučký kůň привет 你好 こんにちは"
_NAMES = ["Anna Berg", "Björn Ångström", "J. O'Neil", "王小明", "Ольга", '"Sales, Europe"', "support", "Zoë"]
_BASE = datetime(2026, 1, 5, 8, tzinfo=UTC)
_LINES = 400  # different lines of text
_BOUNDARY = re.compile(rb'boundary="?(=_[0-9a-f]{32})')


def size_at(share: float) -> int:
    """Return the size in octets of which `share` (0 to 1) of all mails are at most."""
    if share > 1 - TAIL:
        # A Pareto distribution, cut at LARGEST.
        size = KNEE * max((1 - share) / TAIL, 1e-9) ** (-1 / STEEPNESS)
    else:
        size = MEDIAN * math.exp(SPREAD * NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))
    return int(min(max(size, SMALLEST), LARGEST if share > 1 - TAIL else KNEE))


def generate(seed: int, ordinary: int = ORDINARY, large: int = LARGE) -> Iterator[Mail]:
    """Yield `ordinary` mails below KNEE and `large` ones above it; their weights add up to 1."""
    rng = random.Random(seed)
    kinds = [kind for kind, share in _KINDS for _ in range(share)]
    sizes = [(size_at((1 - TAIL) * (index + 0.5) / ordinary), (1 - TAIL) / ordinary) for index in range(ordinary)]
    # The tail is cut into stretches of equal length in the logarithm of the size. Each has the weight that the
    # distribution gives it.
    reach = 1 - (KNEE / LARGEST) ** STEEPNESS
    edges = [(LARGEST / KNEE) ** (index / large) for index in range(large + 1)] if large else []
    for low, high in itertools.pairwise(edges):
        likelihood = TAIL * (low**-STEEPNESS - high**-STEEPNESS) / reach
        sizes.append((int(KNEE * math.sqrt(low * high)), likelihood))
    if large:
        sizes[-1] = LARGEST, sizes[-1][1]
    for number, (size, weight) in enumerate(sizes):
        kind = rng.choice(kinds) if size < KNEE else rng.choice(("attachment", "attachment", "nested", "html"))
        content = _MAKERS[kind](rng, size, number)
        yield Mail(kind, content, weight)


def _lines(words: str) -> list[str]:
    rng = random.Random(words)
    lines = [" ".join(rng.choices(words.split(), k=rng.randint(4, 12))) for _ in range(_LINES)]
    return [f".{line}" if number % 50 == 0 else line for number, line in enumerate(lines)]  # so that dots are stuffed


_PLAIN_LINES, _ACCENTED_LINES = _lines(_PLAIN), _lines(_ACCENTED)


def _text(rng: random.Random, size: int, lines: list[str] = _PLAIN_LINES) -> str:
    """Return lines of text of about `size` octets."""
    mean = sum(map(len, lines)) // len(lines) + 2
    return "\n".join(rng.choices(lines, k=max(1, size // mean))) + "\n"


def _address(rng: random.Random) -> mime.Address:
    return mime.Address(rng.choice(_NAMES), f"user{rng.randrange(1000)}@client.example")


def _build(rng: random.Random, number: int, **pieces: object) -> bytes:
    built = mime.Message.build(
        from_=_address(rng),
        to=[_address(rng) for _ in range(rng.choice((1, 1, 1, 2, 5)))],
        subject=rng.choice(rng.choice((_PLAIN_LINES, _ACCENTED_LINES))),
        date=_BASE + timedelta(minutes=number),
        message_id=f"<{number}.{rng.randrange(1 << 40):x}@client.example>",
        **pieces,  # type: ignore[arg-type]
    )
    content = mime.encode(built)
    # Message.build makes random boundaries. They are replaced by ones that follow from the seed.
    for boundary in dict.fromkeys(_BOUNDARY.findall(content)):
        content = content.replace(boundary, b"=_%032x" % rng.getrandbits(128))
    return content


def _plain(rng: random.Random, size: int, number: int) -> bytes:
    return _build(rng, number, text=_text(rng, size - 350))


def _html(rng: random.Random, size: int, number: int) -> bytes:
    text = _text(rng, (size - 900) // 3)
    page = "".join(f"<p style='margin:0'>{line}</p>\n" for line in text.split("\n"))
    return _build(rng, number, text=text, html=f"<html><body>{page}</body></html>")


def _octets(rng: random.Random, size: int) -> bytes:
    return rng.randbytes(max(1, size))


def _attachment(rng: random.Random, size: int, number: int) -> bytes:
    name = rng.choice(("offer.pdf", "Rechnung März.pdf", "photo.jpg", "table.xlsx", "data.bin"))
    rest = int((size - 1400) * 0.73)
    return _build(rng, number, text=_text(rng, 200), attachments=[(name, _octets(rng, rest))])


def _related(rng: random.Random, size: int, number: int) -> bytes:
    image = mime.Attachment(_octets(rng, int((size - 1800) * 0.73)), "logo.png")
    page = '<html><body><img src="cid:logo"><p>Hello</p></body></html>'
    return _build(rng, number, text="Hello\n", html=page, inline={"logo": image})


def _nested(rng: random.Random, size: int, number: int) -> bytes:
    inner = mime.decode(_attachment(rng, size // 2, number))
    middle = mime.Message.build(
        from_=_address(rng),
        to=_address(rng),
        subject="Fwd: " + rng.choice(_PLAIN_LINES),
        text=_text(rng, 300),
        attachments=[inner],
        date=_BASE,
        message_id=f"<middle.{number}@client.example>",
    )
    return _build(rng, number, text=_text(rng, size // 3), attachments=[mime.decode(mime.encode(middle))])


def _eight_bit(rng: random.Random, size: int, number: int) -> bytes:
    charset = rng.choice(("utf-8", "iso-8859-1"))
    text = _text(rng, (size - 300) // 2) + _text(rng, (size - 300) // 2, _ACCENTED_LINES)
    return _head(number, b"an 8-bit text") + b"".join(
        (
            b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=",
            charset.encode(),
            b"\r\n\r\n",
            text.encode(charset, "replace").replace(b"\n", b"\r\n"),
        )
    )


def _smtputf8(rng: random.Random, size: int, number: int) -> bytes:
    head = _head(number, rng.choice(_ACCENTED_LINES).encode()).replace(b"To: user", "To: Jürgen <jürgen".encode())
    head = head.replace(b"@here.example", "@bücher.example>".encode())
    return head + b"\r\n" + _text(rng, size - 250, _ACCENTED_LINES).replace("\n", "\r\n").encode()


def _head(number: int, subject: bytes) -> bytes:
    fields = (b"From: user@client.example", b"To: user@here.example", b"Subject: " + subject)
    return b"\r\n".join((*fields, b"Message-ID: <hand.%d@client.example>" % number, b""))


def _malformed(rng: random.Random, size: int, number: int) -> bytes:
    head, body = _head(number, b"malformed"), _text(rng, size - 300).replace("\n", "\r\n").encode()
    multipart = b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\n\r\n'
    encoded = base64.encodebytes(body).replace(b"\n", b"\r\n")
    deep = [b"%d.%d" % (number, depth) for depth in range(30)]
    ways = (
        body,  # no header at all
        head + b"\r\n" + body + b"\x00\xff\xfe\r\n",
        head + multipart + b"--x\r\n\r\n" + body,  # no end
        head + multipart + b"--y\r\n\r\n" + body + b"--x--\r\n",
        head + b"Content-Type: text/plain; charset=klingon\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body,
        head + b"Content-Type: ;;;\r\nSubject\r\n folded: wrong\r\n\r\n" + body,
        head.replace(b"malformed", b"=?utf-8?b?!!!?= =?x?q?") + b"Date: yesterday\r\n\r\n" + body,
        head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded.rstrip()[:-3] + b"\r\n",
        head + b"".join(b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n--%b\r\n" % (x, x) for x in deep) + body,
    )
    return rng.choice(ways)


_MAKERS: dict[str, Callable[[random.Random, int, int], bytes]] = {
    "text": _plain,
    "html": _html,
    "attachment": _attachment,
    "related": _related,
    "nested": _nested,
    "malformed": _malformed,
    "8-bit": _eight_bit,
    "smtputf8": _smtputf8,
}
# How many of a hundred mails are of each kind.
_KINDS = (
    ("text", 35), ("html", 30), ("attachment", 12), ("related", 4), ("nested", 4), ("malformed", 6), ("8-bit", 6),
    ("smtputf8", 3),
)  # fmt: skip
