"""Mail as in life, the same for the same seed.

Sizes follow a law with a heavy tail: half of all mail is below 4 KB, a hundredth above 64 KB, and one in 17,000 above
4 MB, the ceiling being 5 MB. A bag has many mails of every day and some from each stretch of the tail, which are drawn
as rarely as the law wants. Well-formed mail is built by gsmtp.mime; the malformed is put together by hand.
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
TAIL = 0.01  # the share of mail above the knee
SPREAD = 1.0  # of the logarithm, below the knee
STEEPNESS = 1.2  # of the tail: twice the size, 0.43 of the mails
# A server sees ever new boundaries and other parameters: these are more than its cache of them holds.
EVERY_DAY, LARGE = 3000, 24

_PLAIN = """
the message was sent yesterday and we have not heard from you since please find enclosed our offer for next year
with kind regards meeting on Monday at ten in room four invoice number account payment due thank you very much
for your order it will leave our house tomorrow the ticket has been closed let us know whether this helps
"""
_ACCENTED = "Grüße aus Köln Zürich déjà vu façade naïve señor mañana Žluťoučký kůň привет 你好 こんにちは"
_NAMES = ["Anna Berg", "Björn Ångström", "J. O'Neil", "王小明", "Ольга", '"Sales, Europe"', "support", "Zoë"]
_BASE = datetime(2026, 1, 5, 8, tzinfo=UTC)
_EVERY_LINE = 400  # different ones
_BOUNDARY = re.compile(rb'boundary="?(=_[0-9a-f]{32})')


def size_at(share: float) -> int:
    """The size that this share of all mail (0 to 1) is smaller than, in octets."""
    if share > 1 - TAIL:
        # A Pareto tail, cut at the largest.
        size = KNEE * max((1 - share) / TAIL, 1e-9) ** (-1 / STEEPNESS)
    else:
        size = MEDIAN * math.exp(SPREAD * NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9)))
    return int(min(max(size, SMALLEST), LARGEST if share > 1 - TAIL else KNEE))


def mails(seed: int, every_day: int = EVERY_DAY, large: int = LARGE) -> Iterator[Mail]:
    """The mails of a bag."""
    dice = random.Random(seed)
    kinds = [kind for kind, share in _KINDS for _ in range(share)]
    sizes = [(size_at((1 - TAIL) * (at + 0.5) / every_day), (1 - TAIL) / every_day) for at in range(every_day)]
    # The tail in stretches that are equally long in the logarithm of the size, each as likely as it is by the law.
    reach = 1 - (KNEE / LARGEST) ** STEEPNESS
    edges = [(LARGEST / KNEE) ** (at / large) for at in range(large + 1)] if large else []
    for low, high in itertools.pairwise(edges):
        likelihood = TAIL * (low**-STEEPNESS - high**-STEEPNESS) / reach
        sizes.append((int(KNEE * math.sqrt(low * high)), likelihood))
    if large:
        sizes[-1] = LARGEST, sizes[-1][1]
    for number, (size, weight) in enumerate(sizes):
        kind = dice.choice(kinds) if size < KNEE else dice.choice(("attachment", "attachment", "nested", "html"))
        content = _MAKERS[kind](dice, size, number)
        yield Mail(kind, content, weight)


def _lines(words: str) -> list[str]:
    dice = random.Random(words)
    lines = [" ".join(dice.choices(words.split(), k=dice.randint(4, 12))) for _ in range(_EVERY_LINE)]
    return [f".{line}" if number % 50 == 0 else line for number, line in enumerate(lines)]  # some to be stuffed


_PLAIN_LINES, _ACCENTED_LINES = _lines(_PLAIN), _lines(_ACCENTED)


def _text(dice: random.Random, size: int, lines: list[str] = _PLAIN_LINES) -> str:
    """Some lines of text, of about this size."""
    mean = sum(map(len, lines)) // len(lines) + 2
    return "\n".join(dice.choices(lines, k=max(1, size // mean))) + "\n"


def _address(dice: random.Random) -> mime.Address:
    return mime.Address(dice.choice(_NAMES), f"user{dice.randrange(1000)}@client.example")


def _written(dice: random.Random, number: int, **pieces: object) -> bytes:
    built = mime.Message.build(
        from_=_address(dice),
        to=[_address(dice) for _ in range(dice.choice((1, 1, 1, 2, 5)))],
        subject=dice.choice(dice.choice((_PLAIN_LINES, _ACCENTED_LINES))),
        date=_BASE + timedelta(minutes=number),
        message_id=f"<{number}.{dice.randrange(1 << 40):x}@client.example>",
        **pieces,  # type: ignore[arg-type]
    )
    content = mime.encode(built)
    # Boundaries are random for whoever builds mail; here they come of the seed.
    for boundary in dict.fromkeys(_BOUNDARY.findall(content)):
        content = content.replace(boundary, b"=_%032x" % dice.getrandbits(128))
    return content


def _plain(dice: random.Random, size: int, number: int) -> bytes:
    return _written(dice, number, text=_text(dice, size - 350))


def _html(dice: random.Random, size: int, number: int) -> bytes:
    text = _text(dice, (size - 900) // 3)
    page = "".join(f"<p style='margin:0'>{line}</p>\n" for line in text.split("\n"))
    return _written(dice, number, text=text, html=f"<html><body>{page}</body></html>")


def _octets(dice: random.Random, size: int) -> bytes:
    return dice.randbytes(max(1, size))


def _attachment(dice: random.Random, size: int, number: int) -> bytes:
    name = dice.choice(("offer.pdf", "Rechnung März.pdf", "photo.jpg", "table.xlsx", "data.bin"))
    rest = int((size - 1400) * 0.73)
    return _written(dice, number, text=_text(dice, 200), attachments=[(name, _octets(dice, rest))])


def _related(dice: random.Random, size: int, number: int) -> bytes:
    image = mime.Attachment(_octets(dice, int((size - 1800) * 0.73)), "logo.png")
    page = '<html><body><img src="cid:logo"><p>Hello</p></body></html>'
    return _written(dice, number, text="Hello\n", html=page, inline={"logo": image})


def _nested(dice: random.Random, size: int, number: int) -> bytes:
    inner = mime.decode(_attachment(dice, size // 2, number))
    middle = mime.Message.build(
        from_=_address(dice),
        to=_address(dice),
        subject="Fwd: " + dice.choice(_PLAIN_LINES),
        text=_text(dice, 300),
        attachments=[inner],
        date=_BASE,
        message_id=f"<middle.{number}@client.example>",
    )
    return _written(dice, number, text=_text(dice, size // 3), attachments=[mime.decode(mime.encode(middle))])


def _eight_bit(dice: random.Random, size: int, number: int) -> bytes:
    charset = dice.choice(("utf-8", "iso-8859-1"))
    text = _text(dice, (size - 300) // 2) + _text(dice, (size - 300) // 2, _ACCENTED_LINES)
    return _head(number, b"an 8-bit text") + b"".join(
        (
            b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: text/plain; charset=",
            charset.encode(),
            b"\r\n\r\n",
            text.encode(charset, "replace").replace(b"\n", b"\r\n"),
        )
    )


def _smtputf8(dice: random.Random, size: int, number: int) -> bytes:
    head = _head(number, dice.choice(_ACCENTED_LINES).encode()).replace(b"To: user", "To: Jürgen <jürgen".encode())
    head = head.replace(b"@here.example", "@bücher.example>".encode())
    return head + b"\r\n" + _text(dice, size - 250, _ACCENTED_LINES).replace("\n", "\r\n").encode()


def _head(number: int, subject: bytes) -> bytes:
    fields = (b"From: user@client.example", b"To: user@here.example", b"Subject: " + subject)
    return b"\r\n".join((*fields, b"Message-ID: <hand.%d@client.example>" % number, b""))


def _malformed(dice: random.Random, size: int, number: int) -> bytes:
    head, body = _head(number, b"malformed"), _text(dice, size - 300).replace("\n", "\r\n").encode()
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
    return dice.choice(ways)


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
# Of a hundred mails.
_KINDS = (
    ("text", 35), ("html", 30), ("attachment", 12), ("related", 4), ("nested", 4), ("malformed", 6), ("8-bit", 6),
    ("smtputf8", 3),
)  # fmt: skip
