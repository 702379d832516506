"""Kernel configurations, plain and gzip, whole and damaged."""

import gzip
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import kconfig as module
from parsers.errors import FormatError, WrongFormatError
from parsers.kconfig import parse_kconfig

CONFIG = Path(__file__).parents[2] / "fixtures/host/dimm-6.12/03-two-blocks-offline/config.gz"


def test_capture_gzip_and_plain_say_the_same():
    packed = parse_kconfig(CONFIG.read_bytes(), "config.gz")
    plain = parse_kconfig(gzip.decompress(CONFIG.read_bytes()), "config")
    assert packed.options == plain.options
    assert (packed.page_size, packed.va_bits, packed.arch, packed.release) == (4096, 48, "arm64", "6.12.117")
    assert packed.diagnostics == ()


def test_not_set_is_known_and_absent_is_unknown():
    config = parse_kconfig(CONFIG.read_bytes(), "config.gz")
    assert config.is_enabled("MEMORY_HOTREMOVE") is True
    assert config.get("CONFIG_ARM64_64K_PAGES") == "n"
    assert config.is_enabled("CONFIG_ARM64_64K_PAGES") is False
    assert config.is_enabled("NO_SUCH_SYMBOL") is None
    assert config.get("NO_SUCH_SYMBOL") is None
    assert config.line("NO_SUCH_SYMBOL") is None


def test_line_numbers_point_into_the_file():
    lines = gzip.decompress(CONFIG.read_bytes()).decode().splitlines()
    config = parse_kconfig(CONFIG.read_bytes(), "config.gz")
    assert lines[config.line("ARM64_VA_BITS") - 1] == "CONFIG_ARM64_VA_BITS=48"
    assert lines[config.line("ARM64_64K_PAGES") - 1] == "# CONFIG_ARM64_64K_PAGES is not set"


def test_values():
    config = parse_kconfig(b'CONFIG_A=m\nCONFIG_S="say \\"x\\" # y"\nCONFIG_H=0xff\nCONFIG_D=-5\nCONFIG_E=\n', "c")
    assert config.is_enabled("A") is True
    assert config.get("S") == 'say "x" # y'
    assert [config.integer(name) for name in "HDESZ"] == [255, -5, None, None, None]
    assert config.page_size is None
    assert config.va_bits is None


@pytest.mark.parametrize(("name", "size"), [("4K", 4096), ("16K", 16384), ("64K", 65536)])
def test_page_size(name, size):
    assert parse_kconfig(f"CONFIG_ARM64_{name}_PAGES=y\n".encode(), "c").page_size == size


def test_last_of_two_values_counts_and_is_reported():
    config = parse_kconfig(b"CONFIG_A=y\nCONFIG_B=y\n# CONFIG_A is not set\nCONFIG_B=y\n", "c")
    assert config.is_enabled("A") is False
    assert config.line("A") == 3
    assert [d.line for d in config.diagnostics] == [3]


@pytest.mark.parametrize("arch", ["x86", "x86_64", "riscv", "powerpc"])
def test_other_architecture_is_refused(arch):
    text = f"#\n# Linux/{arch} 6.1.0 Kernel Configuration\nCONFIG_64BIT=y\n".encode()
    with pytest.raises(WrongFormatError, match=f"a kernel for {arch}, not for arm64") as refused:
        parse_kconfig(text, "c")
    assert (refused.value.path, refused.value.line) == ("c", 2)


HEAD = b"# Linux/arm64 6.12.117 Kernel Configuration\n"
BODY = b"#\n# File systems\n#\nCONFIG_HUGETLBFS=y\n# end of File systems\n#\n# Kernel hacking\n#\n"
END = b"# CONFIG_KASAN is not set\n# end of Kernel hacking\n"
OLD = BODY.replace(b"# end of File systems\n", b"") + END.splitlines(keepends=True)[0]


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        (HEAD + BODY + END, True),
        (HEAD + OLD, True),
        (HEAD + BODY, False),
        (BODY + END, False),
        (HEAD + b"CONFIG_HUGETLBFS=y\n", False),
        (HEAD + BODY[15:] + END, False),
        (OLD, False),
    ],
    ids=["whole", "before 5.2", "cut", "without its head", "two lines", "without the start of a menu", "old, no head"],
)
def test_a_configuration_is_whole_from_its_head_to_the_last_menu(text, complete):
    assert parse_kconfig(text, "c").complete is complete


def test_mail_and_windows_line_ends():
    config = parse_kconfig(b"> CONFIG_A=y\r\n> # CONFIG_B is not set\r\n", "c")
    assert (config.get("A"), config.get("B")) == ("y", "n")


def test_gzip_from_the_kernel_image_has_a_magic_word_before_and_anything_after():
    config = parse_kconfig(b"IKCFG_ST" + CONFIG.read_bytes() + b"IKCFG_ED\0\1\2", "vmlinux")
    assert config.va_bits == 48


def test_truncated_gzip_gives_what_it_has():
    config = parse_kconfig(CONFIG.read_bytes()[:9000], "config.gz")
    assert config.get("ARM64_VA_BITS") == "48"
    assert "cut short" in config.diagnostics[0].message


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", b"hello\n", b"\x1f\x8b\x08", b"\x1f\x8bgarbage", b"CONFIG_A=y\0\n", gzip.compress(b"x", mtime=0)],
)
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_kconfig(data, "c")


def test_gzip_bomb_is_bounded():
    with pytest.raises(FormatError, match="more than"):
        parse_kconfig(gzip.compress(b"\n" * (module.MAX_BYTES * 20)), "c")


@given(
    st.dictionaries(
        st.from_regex(r"[A-Z0-9_]{1,12}", fullmatch=True), st.sampled_from(["y", "m", "n", "12", "0x10"]), min_size=1
    )
)
def test_parse_undoes_print(options):
    lines = [f"# CONFIG_{n} is not set" if v == "n" else f"CONFIG_{n}={v}" for n, v in options.items()]
    config = parse_kconfig("\n".join(lines).encode(), "c")
    assert {name: option.value for name, option in config.options.items()} == options
    assert [option.line for option in config.options.values()] == list(range(1, len(lines) + 1))


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda tail: b"\x1f\x8b\x08" + tail))
def test_any_bytes_parse_or_raise_format_error(data):
    with suppress(FormatError):
        assert parse_kconfig(data, "c").options
