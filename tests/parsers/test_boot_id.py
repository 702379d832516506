"""The boot id: a UUID, or a clear refusal."""

from __future__ import annotations

import pytest

from parsers.boot_id import parse_boot_id
from parsers.errors import FormatError

UUID = "5c0ef2d4-6a0e-4d0f-8d3a-0f3a4b5c6d7e"


@pytest.mark.parametrize("text", [UUID, f"{UUID}\n", f"  {UUID.upper()}\r\n"])
def test_the_uuid_is_read_in_lower_case(text: str) -> None:
    assert parse_boot_id(text.encode(), "boot_id").value == UUID


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"-bash: Permission denied", UUID.encode()[:-1], b"\xff\xfe", b"0" * 100_000]
)
def test_anything_else_is_a_format_error_with_the_path(data: bytes) -> None:
    with pytest.raises(FormatError) as caught:
        parse_boot_id(data, "boot_id")
    assert caught.value.path == "boot_id"
