"""What mail, web pages and Windows make of a text, undone: line numbers stay those of the text as it was sent.

Quoted-printable and base64 bodies of mails and of their parts, UTF-16, no-break spaces, the entities and tags of HTML.
Each is recognised by what only it looks like; anything else passes unchanged, at the cost of a few searches.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import islice, pairwise

from parsers.expressions import expression

__all__ = ["attachments", "decoded"]

MAX_ENCODED = 64 << 20
"""Larger texts are not mail."""
MAX_PARTS = 1000
"""Of a mail, and of a mailbox."""
_PEEK = 1 << 16
_HEADERS = expression(rb"\A(?:[A-Za-z][\w-]{0,60}:[^\n]{0,2000}\n(?:[ \t][^\n]{0,2000}\n){0,50}){1,200}\r?\n")
_BOUNDARY = expression(
    rb"^Content-Type: *multipart/[^\n]{0,200}?(?:\n[ \t][^\n]{0,200}?){0,4}?"
    rb"\bboundary=(?:\"([^\"\n]{1,70})\"|([^\s;\"]{1,70}))",
    re.IGNORECASE | re.MULTILINE,
)
_MAILBOX_LINE = rb"From [^\n]{1,200} \d\d:\d\d:\d\d [^\n]{0,20}\d{4}"
_ENCODING = expression(rb"^Content-Transfer-Encoding:\s*(quoted-printable|base64)", re.IGNORECASE | re.MULTILINE)
_BASE64 = expression(rb"\A\s{0,8}(?:[A-Za-z0-9+/]{60,76}\r?\n){2,}")
_BASE64_BODY = expression(rb"\A\s{0,8}(?:[A-Za-z0-9+/]{1,76}={0,2}\s{0,4})+")
_ESCAPE = expression(rb"=(?:\r?\n|[0-9A-F]{2})")
_SOFT_BREAKS = expression(rb"(?:[^\n]{0,200}=\r?\n)+[^\n]{0,200}")
_HEX = expression(rb"=([0-9A-F]{2})")
_ENTITIES = {b"&lt;": b"<", b"&gt;": b">", b"&quot;": b'"', b"&#39;": b"'", b"&nbsp;": b" ", b"&amp;": b"&"}
_PAGE = expression(rb"<(?:pre|html|br|span|div|td|code)\b", re.IGNORECASE)
_TAG = expression(
    rb"</?(?:html|head|body|pre|code|span|div|br|p|a|td|th|tr|table|b|i|em|font)\b[^>\n]{0,300}>", re.IGNORECASE
)
_BREAK = expression(rb"<br\b[^>\n]{0,20}>(?!\s*\n)|</(?:div|p|li|tr)>(?=<)", re.IGNORECASE)
"""Ends of lines of a page that is written in one line."""
_NO_BREAK = b"\xc2\xa0"
_NAME = expression(rb"\b(?:file)?name\*?=(?:\"([^\"\n]{1,200})\"|([^\s;\"]{1,200}))", re.IGNORECASE)
_PART_HEADERS = expression(
    rb"(?:^[A-Za-z][\w-]{0,60}:[^\n]{0,2000}\n(?:[ \t][^\n]{0,2000}\n){0,50}){1,200}", re.MULTILINE
)


def decoded(data: bytes) -> bytes:
    """The text as UTF-8 or whatever bytes it has, without what carried it.

    >>> decoded(b"ESR =3D 0x96000006 at fffffd=\\nffc2100000\\nnext\\n")
    b'ESR = 0x96000006 at fffffdffc2100000\\n\\nnext\\n'
    >>> mail = b"Content-Transfer-Encoding: quoted-printable\\n\\npte=3D0068\\n"
    >>> decoded(decoded(mail)) == decoded(mail)
    True
    >>> decoded("page".encode("utf-16"))
    b'page'
    """
    data = _from_utf16(data)
    if len(data) <= MAX_ENCODED:
        data = _from_mails(data)
    if _NO_BREAK in data:
        data = data.replace(_NO_BREAK, b" ")
    if b"&lt;" in data or b"&gt;" in data or _PAGE.search(data, 0, _PEEK):
        data = _from_html(data)
    return data


def attachments(data: bytes) -> tuple[str, ...]:
    r"""Names of the parts of a mail that `decoded` leaves as they are, packed and binary files; else "attachment".

    >>> attachments(b"Content-Type: image/png; name=a.png\nContent-Transfer-Encoding: base64\n\niVBORw0KGgoAAAANSUhE\n")
    ('a.png',)
    """
    if len(data) > MAX_ENCODED or b"content-transfer-encoding" not in data.lower():  # six times as fast as _ENCODING
        return ()
    heads = (head[0] for head in _PART_HEADERS.finditer(decoded(data)))
    packed = (head for head in heads if (said := _ENCODING.search(head)) is not None and said[1].lower() == b"base64")
    names = (_NAME.search(head) for head in islice(packed, MAX_PARTS))
    return tuple((name[1] or name[2]).decode("utf-8", "replace") if name else "attachment" for name in names)


def _from_utf16(data: bytes) -> bytes:
    """UTF-16 with its mark, or without where every second byte of the beginning is zero."""
    head = data[:256]
    codec = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(head[:2], "")
    if not codec and len(head) >= 8 and not any(head[1::2]) and all(head[0::2]):
        codec = "utf-16-le"
    elif not codec and len(head) >= 8 and not any(head[0::2]) and all(head[1::2]):
        codec = "utf-16-be"
    return data.decode(codec, "replace").encode() if codec else data


def _from_mails(data: bytes) -> bytes:
    """A mail, or several in a mailbox, with the bodies of all parts; a part that is not text stays as it is."""
    named = _BOUNDARY.finditer(data) if b"boundary=" in data else iter(())
    bounds = {found[1] or found[2] for found in islice(named, MAX_PARTS)}
    lines = [b"--%b(?:--)?" % re.escape(bound) for bound in sorted(bounds)]
    if data.startswith(b"From "):
        lines.append(_MAILBOX_LINE)
    if not lines:
        return _from_mail(data)
    begins = [found.end() for found in re.finditer(rb"^(?:%b)[ \t]*\r?\n" % b"|".join(lines), data, re.MULTILINE)]
    cuts = [0, *begins[:MAX_PARTS], len(data)]
    return b"".join(_part(data[start:end]) for start, end in pairwise(cuts))


def _part(data: bytes) -> bytes:
    """One part of a mail, up to the line that begins the next, which stays."""
    last = data.rfind(b"\n", 0, len(data) - 1) + 1
    if not data[last:].startswith((b"--", b"From ")):
        last = len(data)
    plain = _from_mail(data[:last])
    return plain + (b"" if plain.endswith(b"\n") or last == len(data) else b"\n") + data[last:]


def _from_mail(data: bytes) -> bytes:
    """The body of a mail, after as many empty lines as its headers had, or a body alone."""
    if b"=" not in data and not _BASE64.match(data) and not _ENCODING.search(data, 0, _PEEK):
        return data
    headers = _HEADERS.match(data)
    start = headers.end() if headers is not None else 0
    said = _ENCODING.search(data, 0, start)
    encoding = said[1].lower() if said is not None else b""
    body = data[start:]
    # Drop the name of the encoding that was decoded, so that decoding again changes nothing.
    above = _ENCODING.sub(b"Content-Transfer-Encoding: 8bit", data[:start])
    if encoding == b"quoted-printable" or (not encoding and _is_quoted_printable(body)):
        return above + _from_quoted_printable(body)
    if encoding == b"base64" or (not encoding and _BASE64.match(body)):
        text = _from_base64(body)
        return data if text is body else above + text
    return data


def _is_quoted_printable(body: bytes) -> bool:
    """Whether every equals sign begins an escape, and lines are wrapped by them."""
    head = body[:_PEEK]
    signs = head.count(b"=")
    escaped = b"=3D" in head or b"=20" in head or b"=C2=" in head
    return escaped and (b"=\n" in head or b"=\r\n" in head) and len(_ESCAPE.findall(head)) >= signs - 1


def _from_quoted_printable(body: bytes) -> bytes:
    """Lines joined, then empty lines for those that are gone; a character that is not text becomes a blank."""
    joined = _SOFT_BREAKS.sub(lambda found: re.sub(rb"=\r?\n", b"", found[0]) + b"\n" * found[0].count(b"\n"), body)
    return _HEX.sub(lambda found: bytes([max(int(found[1], 16), 0x20)]), joined)


def _from_base64(body: bytes) -> bytes:
    found = _BASE64_BODY.match(body)
    if found is None:
        return body
    try:
        text = base64.b64decode(b"".join(found[0].split()))
    except binascii.Error:
        return body
    text = _from_utf16(text)
    return body if b"\0" in text[:4096] else text


def _from_html(data: bytes) -> bytes:
    if _PAGE.search(data, 0, _PEEK):
        if data.count(b"\n") < data.count(b"<br") or data.count(b"\n") < data.count(b"</div>"):
            data = _BREAK.sub(b"\n", data)
        data = _TAG.sub(b"", data)
    for entity, character in _ENTITIES.items():
        data = data.replace(entity, character)
    return data
