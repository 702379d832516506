"""What carried a text is undone, and nothing else is touched."""

from __future__ import annotations

import base64
import gzip
import quopri
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers.encodings import attachments, decoded
from parsers.lines import text_of

OOPS = (Path(__file__).parents[2] / "fixtures/oops/pmem-6.12-vuln.txt").read_bytes()
HEADERS = b"From: someone\nSubject: oops\nContent-Transfer-Encoding: %b\n\n"


@pytest.mark.parametrize(
    "text",
    [
        base64.encodebytes(OOPS),
        OOPS.decode().encode("utf-16"),
        OOPS.decode().encode("utf-16-be").join([b"\xfe\xff", b""]),
        OOPS.decode().encode("utf-16-le"),
        OOPS.replace(b" ", "\u00a0".encode()),
        b"<pre>\n".replace(b"\n", b"") + OOPS.replace(b"<", b"&lt;").replace(b">", b"&gt;") + b"</pre>",
    ],
    ids=["base64", "UTF-16", "UTF-16 big-endian", "UTF-16 without a mark", "no-break spaces", "HTML"],
)
def test_text_is_as_it_was(text: bytes) -> None:
    assert decoded(text).strip() == OOPS.strip()


@pytest.mark.parametrize("headers", [b"", HEADERS % b"quoted-printable"])
def test_quoted_printable_keeps_the_numbers_of_the_lines_after_a_joined_one(headers: bytes) -> None:
    text = headers + quopri.encodestring(OOPS)
    lines, sent = decoded(text).split(b"\n"), text.split(b"\n")
    for words in (b"Mem abort info", b"Call trace:", b"Code: "):
        number = next(number for number, line in enumerate(sent) if words in line)
        assert words in lines[number]
    body = b"\n".join(lines[headers.count(b"\n") :])
    assert [line for line in body.split(b"\n") if line] == OOPS.rstrip(b"\n").split(b"\n")


@pytest.mark.parametrize(
    "text",
    [
        b"root=/dev/sda1 a=3D b\n",
        b"x = 1\ny = 2=\n",
        b"CONFIG_ARM64=y\n" * 9,
        b"a & b && c; d &amp; e\n",
        OOPS,
        b"A" * 70 + b"\n",
        bytes(range(256)),
    ],
)
def test_what_is_not_encoded_passes_unchanged(text: bytes) -> None:
    assert decoded(text) == text


@given(st.binary(max_size=300))
def test_any_bytes_are_taken(data: bytes) -> None:
    decoded(data)
    decoded(HEADERS % b"base64" + data)
    decoded(HEADERS % b"quoted-printable" + data)


def test_other_evidence_is_decoded_as_well() -> None:
    assert text_of("MemTotal: 1 kB\n".encode("utf-16"), "meminfo", limit=99, what="meminfo") == b"MemTotal: 1 kB\n"


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be"])
def test_both_orders_of_utf16_with_and_without_its_mark(codec: str) -> None:
    text = "[    1.000000] Offlined Pages 32768\n"
    assert decoded(text.encode(codec)) == text.encode()


TEXT = b"[    1.000000] Offlined Pages 32768\nx=1 ESR = 0x96000006\n" * 3
ENCODINGS = {"8bit": bytes, "base64": base64.encodebytes, "quoted-printable": quopri.encodestring}


def part(encoding: str, body: bytes = TEXT) -> bytes:
    headers = f'Content-Type: text/plain;\n\tname="dmesg.txt"\nContent-Transfer-Encoding: {encoding}\n\n'
    return headers.encode() + ENCODINGS[encoding](body)


@pytest.mark.parametrize("first", ENCODINGS)
@pytest.mark.parametrize("second", ENCODINGS)
@pytest.mark.parametrize("boundary", [b'boundary="=-x+(1)"', b"charset=utf-8;\n boundary==-x+(1)"])
def test_every_part_of_a_mail_is_decoded(first: str, second: str, boundary: bytes) -> None:
    head = b"From: a@b\nMIME-Version: 1.0\nContent-Type: multipart/mixed; " + boundary + b"\nSubject: x\n\n"
    mail = head + b"--=-x+(1)\n" + part(first) + b"\n--=-x+(1)\n" + part(second) + b"\n--=-x+(1)--\n"
    for text in (mail, mail.replace(b"\n", b"\r\n")):
        once = decoded(text)
        assert once.replace(b"\r\n", b"\n").count(TEXT.replace(b"\n\n", b"\n")) == 2
        assert decoded(once) == once


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_mail_of_a_mailbox_is_decoded(encoding: str) -> None:
    line = b"From a@b Thu Jan  1 00:00:00 1970\n"
    box = (line + b"From: a@b\nSubject: x\n" + part(encoding) + b"\n") * 3
    assert decoded(box).count(TEXT) == 3


def test_a_part_that_is_not_text_leaves_the_others() -> None:
    packed = part("base64", gzip.compress(bytes(range(256)) * 4, mtime=0))
    mail = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + packed + b"--b\n" + part("base64") + b"--b--\n"
    assert TEXT in decoded(mail)
    assert attachments(mail) == ("dmesg.txt",)
    assert attachments(mail.replace(b';\n\tname="dmesg.txt"', b"")) == ("attachment",)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_part_that_is_text_is_no_attachment(encoding: str) -> None:
    mail = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" + part(encoding) + b"--b--\n"
    assert attachments(mail) == ()
    assert attachments(mail.replace(b"\n", b"\r\n")) == ()
