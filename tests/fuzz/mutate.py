"""Damage to inputs: bits and bytes as any fuzzer does, and what files are made of: numbers, lines, words, fields."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

__all__ = ["grow", "mutate", "pile", "stretch"]

_NUMBER = re.compile(rb"(?<![0-9a-zA-Z])(?:0x)?[0-9a-fA-F]*[0-9][0-9a-fA-F]*(?![g-zG-Z])")
_WORD = re.compile(rb"[^\s:=,()\[\]<>-]+")
_NUMBERS = (0, 1, 7, 8, 63, 64, 127, 128, 255, 4095, 4096, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**47)
_NUMBERS += (2**48, 2**52, 2**62, 2**63 - 1, 2**63, 2**64 - 4096, 2**64 - 1, 2**64, 10**19, 10**23, 10**400)
_BLANKS = (
    b"",
    b" ",
    b"\t",
    b"\n",
    b"\r\n",
    b"\r",
    b"\0",
    b"\x0b",
    b"\x1b[31m",
    b"> ",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xc3",
)

Change = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutate(rng: random.Random, data: bytes, words: Sequence[bytes], limit: int) -> bytes:
    """``data`` after a few changes, at most ``limit`` bytes; ``words`` are pieces worth inserting."""
    out = bytearray(data)
    text = b"\0" not in data[:4096]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        rng.choice(_TEXT if text and rng.random() < 0.85 else _BINARY)(rng, out, words)
        del out[limit:]
    return bytes(out)


def grow(rng: random.Random, data: bytes, size: int) -> bytes:
    """A piece of ``data`` again and again, up to ``size`` bytes: what is quadratic shows."""
    start, stop = _span(rng, data)
    if rng.random() < 0.7:  # whole lines
        start = data.rfind(b"\n", 0, start) + 1
        stop = data.find(b"\n", stop) + 1 or len(data)
    piece = data[start:stop] or b"\n"
    return data[:start] + piece * max((size - len(data)) // len(piece), 1) + data[stop:]


def stretch(rng: random.Random, data: bytes, size: int) -> bytes:
    """One place in ``data`` becomes a run of one or two characters up to ``size`` bytes: what backtracks shows."""
    at = rng.choice([match.start() for match in _EDGE.finditer(data[: 1 << 13])] or [0]) + rng.choice((0, 0, 1))
    run = rng.choice((*_RUNS, data[at : at + 1] or b" ", data[at : at + 2] or b" "))
    run *= max(size - len(data), 0) // len(run)
    return data[:at] + run + rng.choice((data[at:], b"", b"\n" + data[at:], b"\0"))


def pile(rng: random.Random, data: bytes, size: int) -> bytes:
    """A piece of a line again and again in that line, up to ``size`` bytes: what looks for its ends shows."""
    lines = data[: 1 << 16].split(b"\n")
    at = rng.choice([number for number, line in enumerate(lines) if line] or [0])
    start = rng.randrange(len(lines[at]) + 1)
    stop = min(len(lines[at]), start + rng.choice((1, 2, 3, 5, 8, 13, 21, 40, 80)))
    piece = lines[at][start:stop] or b" "
    rest = rng.choice((lines[at][stop:], lines[at][stop:], b"", b"\0"))
    lines[at] = lines[at][:start] + piece * max((size - len(data)) // len(piece), 1) + rest
    return b"\n".join(lines)


_EDGE = re.compile(rb"\b|(?=[^\w\s])|$", re.MULTILINE)
_RUNS = (
    b" ",
    b"\t",
    b"\n",
    b"0",
    b"f",
    b"a",
    b"1.",
    b"a ",
    b"0 ",
    b"(",
    b"[",
    b"<",
    b"=",
    b",",
    b"-",
    b'"',
    b"\\",
    b"> ",
    b"\r",
)


def _span(rng: random.Random, data: bytes | bytearray) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 2, 4, 8, 30, 200, 4096)))


def _flip(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _field(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """An aligned integer of a binary structure becomes a number at a bound."""
    size = rng.choice((1, 2, 4, 8))
    if len(data) >= size:
        near = rng.choice((len(data), min(len(data), 512)))  # headers are where it matters
        at = rng.randrange(max(near - size, 0) + 1) // size * size
        number = rng.choice(_NUMBERS) + rng.choice((0, 0, 1, -1))
        data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, rng.choice(("little", "big")))


def _delete(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, stop = _span(rng, data)
    del data[start:stop]


def _repeat(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, stop = _span(rng, data)
    data[start:start] = data[start:stop] * rng.choice((1, 2, 50))


def _move(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    start, stop = _span(rng, data)
    piece = data[start:stop]
    at = rng.randrange(len(data) + 1)
    data[at : at + len(piece)] = piece


def _cut(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    if rng.random() < 0.8:
        del data[at:]
    else:
        del data[:at]


def _insert(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice(words) if words and rng.random() < 0.7 else rng.choice(_BLANKS)


def _number(rng: random.Random, data: bytearray, _: Sequence[bytes]) -> None:
    """A number in a text becomes another: at a bound, off by one, of other width, negative."""
    found = _near(rng, _NUMBER, data)
    if found is None:
        return
    start, stop = found
    old = bytes(data[start:stop])
    base = 16 if re.search(rb"[xa-fA-F]", old) or rng.random() < 0.3 else 10
    value = (
        rng.choice(_NUMBERS) if rng.random() < 0.6 else int(old.removeprefix(b"0x") or b"0", 16) + rng.choice((1, -1))
    )
    text = b"%x" % value if base == 16 or value >> 10000 else b"%d" % value
    new = rng.choice((text, text, text.rjust(len(old), b"0"), b"0x" + text, b"-" + text, text[: len(old)]))
    data[start:stop] = new


def _exchange(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """A word becomes another word."""
    found = _near(rng, _WORD, data)
    if found is not None and words:
        other = rng.choice(words)
        data[found[0] : found[1]] = other.strip() if rng.random() < 0.8 else other


def _near(rng: random.Random, pattern: re.Pattern[bytes], data: bytearray) -> tuple[int, int] | None:
    match = pattern.search(data, rng.randrange(len(data) + 1)) or pattern.search(data)
    return match.span() if match else None


def _lines(rng: random.Random, data: bytearray, words: Sequence[bytes]) -> None:
    """A line is left out, doubled, moved, joined with the next, or is one of another file."""
    lines = bytes(data).split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    what = rng.randrange(6)
    if what == 0:
        del lines[at]
    elif what == 1:
        lines[at:at] = [lines[at]] * rng.choice((1, 2, 20))
    elif what == 2:
        lines[at], lines[other] = lines[other], lines[at]
    elif what == 3:
        lines[at : at + 2] = [b"".join(lines[at : at + 2])]
    elif what == 4 and words:
        lines.insert(at, rng.choice(words))
    else:
        cut = rng.randrange(len(lines[at]) + 1)
        lines[at] = lines[at][:cut] + lines[other][cut:]
    data[:] = b"\n".join(lines)


_BINARY: tuple[Change, ...] = (_flip, _byte, _field, _field, _field, _delete, _repeat, _move, _cut, _insert)
_TEXT: tuple[Change, ...] = (
    _flip,
    _byte,
    _delete,
    _repeat,
    _move,
    _cut,
    _insert,
    _number,
    _number,
    _number,
    _lines,
    _lines,
)
_TEXT += (_exchange, _exchange)
