"""Kernel command lines, split as the kernel splits them."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parsers import cmdline as module
from parsers.cmdline import Parameter, parse_cmdline
from parsers.errors import FormatError

CMDLINE = Path(__file__).parents[2] / "fixtures/host/dimm-6.12/03-two-blocks-offline/cmdline"


def test_capture():
    line = parse_cmdline(CMDLINE.read_bytes(), "cmdline")
    assert [(each.name, each.value) for each in line.parameters] == [
        ("console", "ttyAMA0"),
        ("earlycon", None),
        ("panic", "-1"),
        ("init_on_free", "1"),
        ("initrd", "initrd"),
    ]
    assert line.raw == CMDLINE.read_text().strip()
    assert line.diagnostics == ()


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ('a="b c" d', [("a", "b c"), ("d", None)]),
        ('"a=b c" d', [("a", "b c"), ("d", None)]),
        ('a=b"c d"e', [("a", 'b"c d"e')]),
        ('a="" b=', [("a", ""), ("b", "")]),
        ("a=b=c\t\n d", [("a", "b=c"), ("d", None)]),
        ('a="b c', [("a", "b c")]),
        ("=x", [("", "x")]),
        ("mod.par=1", [("mod.par", "1")]),
    ],
)
def test_quoting(text, parameters):
    assert [(each.name, each.value) for each in parse_cmdline(text.encode(), "c").parameters] == parameters


def test_last_occurrence_wins_and_all_are_kept():
    line = parse_cmdline(
        b"rodata=full memory_hotplug.memmap-on-memory=1 rodata=off memory_hotplug.memmap_on_memory", "c"
    )
    assert line.value("rodata") == "off"
    assert [each.value for each in line.all("rodata")] == ["full", "off"]
    assert [each.value for each in line.all("memory-hotplug.memmap_on_memory")] == ["1", None]
    assert line.get("memory_hotplug.memmap_on_memory") == Parameter("memory_hotplug.memmap_on_memory", None)


def test_given_without_value_is_not_the_same_as_not_given():
    line = parse_cmdline(b"nokaslr", "c")
    assert line.value("nokaslr") is None
    assert "nokaslr" in line
    assert "rodata" not in line
    assert 5 not in line
    assert line.get("rodata") is None


def test_what_follows_two_dashes_is_for_init():
    line = parse_cmdline(b"quiet -- rodata=off -- single", "c")
    assert "rodata" not in line
    assert line.init_arguments == ("rodata=off", "--", "single")


def test_prompt_and_quoting_by_mail():
    line = parse_cmdline(b"> $ cat /proc/cmdline\r\n> quiet rodata=full\r\n", "c")
    assert [each.name for each in line.parameters] == ["quiet", "rodata"]
    assert line.line == 2


def test_line_that_mail_wrapped_is_one():
    line = parse_cmdline(b"console=ttyAMA0\n  rodata=full\n\n", "c")
    assert [each.name for each in line.parameters] == ["console", "rodata"]


def test_doubts_are_reported():
    assert "not closed" in parse_cmdline(b'a="b', "c").diagnostics[0].message
    assert "cut off" in parse_cmdline(b"a" * 2047, "c").diagnostics[0].message
    assert parse_cmdline(b"a" * 2046, "c").diagnostics == ()


@pytest.mark.parametrize("data", [b"", b" \n", b"a\0b", b"x" * (module.MAX_BYTES + 1), b"x\n" * 33])
def test_nothing_usable_is_a_format_error(data):
    with pytest.raises(FormatError):
        parse_cmdline(data, "c")


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), st.none() | st.text("ab ,=/:", max_size=8)),
        min_size=1,
    )
)
def test_parse_undoes_print(parameters):
    text = " ".join(name if value is None else f'{name}="{value}"' for name, value in parameters)
    assert [(each.name, each.value) for each in parse_cmdline(text.encode(), "c").parameters] == parameters


@given(st.text(max_size=60) | st.text('a=" -', max_size=60))
def test_any_text_parses_or_raises_format_error(text):
    with suppress(FormatError):
        assert parse_cmdline(text.encode("utf-8", "surrogatepass"), "c").raw
