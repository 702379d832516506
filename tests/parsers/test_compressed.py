"""Every compression is read as a stream, damage included, and none may ask for more memory than the window."""

from __future__ import annotations

import bz2
import doctest
import gzip
import io
import lzma

import numpy as np
import pytest
import zstandard

from parsers import compressed
from parsers.compressed import DAMAGE, Growth, compression, decompressed, first_bytes
from parsers.errors import FormatError

PACK = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
}
DATA = np.random.default_rng(3).bytes(70_000) + bytes(3 << 20)


def test_doctests() -> None:
    assert doctest.testmod(compressed).failed == 0


def drain(plain: compressed.Stream) -> list[bytes]:
    return list(iter(lambda: plain.read(1 << 16), b""))


@pytest.mark.parametrize("name", PACK)
def test_several_streams_are_one_file(name: str) -> None:
    packed = PACK[name](DATA) + PACK[name](b"") + PACK[name](b"end")
    assert compression(packed) == name
    found = drain(decompressed(name, io.BytesIO(packed)))
    assert max(map(len, found)) <= 1 << 16
    assert b"".join(found) == DATA + b"end"


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_an_early_end_is_damage(name: str, kept: float) -> None:
    packed = PACK[name](DATA)
    with pytest.raises(DAMAGE):
        drain(decompressed(name, io.BytesIO(packed[: int(len(packed) * kept)])))


@pytest.mark.parametrize("name", PACK)
def test_the_beginning_of_a_beginning(name: str) -> None:
    packed = PACK[name](b"first" + bytes(1 << 20))
    assert first_bytes(packed, 5) == b"first"
    assert first_bytes(packed[:7], 5) == b""
    assert first_bytes(packed[:7] + b"\xff" * 40, 5) == b""


def test_a_window_larger_than_allowed_is_damage() -> None:
    options = zstandard.ZstdCompressionParameters.from_level(3, window_log=31, enable_ldm=True)
    stream = zstandard.ZstdCompressor(compression_params=options).compressobj()  # the size is not in the header
    packed = stream.compress(b"x" * 1000) + stream.flush()
    with pytest.raises(DAMAGE):
        decompressed("zstd", io.BytesIO(packed)).read(10)
    assert decompressed("zstd", io.BytesIO(packed), window=compressed.LONGEST_WINDOW).read(10) == b"x" * 10


def test_growth() -> None:
    growth = Growth(ratio=10, free=1000)
    growth.check(1000, 1, "file")
    growth.check(5000, 500, "file")
    with pytest.raises(FormatError, match="10 times"):
        growth.check(5001, 500, "file")
