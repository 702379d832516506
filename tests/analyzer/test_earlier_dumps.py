"""An earlier dump is never taken for the state when the later one is missing or cannot be read."""

from __future__ import annotations

import shutil

import pytest
import zstandard

from analyzer.sources.moments import is_named_earlier
from analyzer.sources.read import Request, read_sources
from tests.cases import CAPTURES, FIXTURES

MACHINE = CAPTURES / "pmem-6.12-vuln"
CORE = "vmcore/pmem-6.12-readded.core.zst"
LISTS = ("iomem", "memory_blocks", "uname")


def copied(home, moment, *names):
    """A capture directory with some files of a moment of the machine."""
    home.mkdir()
    for name in names:
        shutil.copyfile(MACHINE / moment / name, home / name)
    return home


@pytest.fixture
def before(tmp_path):
    return copied(tmp_path / "first", "01-three-namespaces", *LISTS, "kernel_page_tables")


def read(*paths):
    sources = read_sources(Request(paths))
    return sources.captured, [one.reason for one in sources.unread]


def test_the_dump_of_an_earlier_capture_is_not_the_state_of_a_later_one(tmp_path, before):
    captured, unread = read(before, copied(tmp_path / "second", "02-one-removed", *LISTS))
    assert captured.dump is None
    assert captured.earlier_dump is not None
    assert any("is a later capture without one" in reason for reason in unread)


def test_lists_that_are_the_same_are_of_the_same_state(tmp_path, before):
    captured, _ = read(before, copied(tmp_path / "second", "01-three-namespaces", *LISTS))
    assert captured.dump is not None


def test_a_list_that_is_collected_again_is_an_addition(tmp_path, before):
    captured, _ = read(before, copied(tmp_path / "second", "02-one-removed", "iomem") / "iomem")
    assert captured.dump is not None
    assert captured.earlier_dump is None


def test_an_earlier_dump_does_not_replace_a_later_one_that_cannot_be_read(tmp_path, before):
    later = copied(tmp_path / "second", "01-three-namespaces", *LISTS)
    (later / "kernel_page_tables").write_text("<html>502 Bad Gateway</html>\n")
    captured, unread = read(before, later)
    assert captured.dump is None
    assert any("cannot be read" in reason for reason in unread)


def test_of_two_files_the_second_of_which_cannot_be_read_the_first_is_earlier(tmp_path, before):
    (tmp_path / "later.txt").write_text("<html>502 Bad Gateway</html>\n")
    (tmp_path / "log.txt").write_text("<html>502 Bad Gateway</html>\n")
    assert read(before / "kernel_page_tables", tmp_path / "later.txt")[0].dump is None
    assert read(before, tmp_path / "log.txt")[0].dump is not None


def test_an_earlier_crash_dump_does_not_replace_one_that_cannot_be_read(tmp_path):
    earlier = tmp_path / "core"
    earlier.write_bytes(zstandard.ZstdDecompressor().stream_reader((FIXTURES / CORE).read_bytes()).read())
    (tmp_path / "later").write_bytes(earlier.read_bytes()[:5000])
    captured, unread = read(earlier, tmp_path / "later")
    assert captured.vmcore is None
    assert captured.earlier_vmcore is not None
    assert any("a crash dump that was given later cannot be read" in reason for reason in unread)


def test_a_dump_that_is_named_earlier_is_not_the_state(tmp_path, before):
    dump = (before / "kernel_page_tables").rename(tmp_path / "earlier_page_tables")
    captured, unread = read(dump, before)
    assert captured.dump is None
    assert any("an earlier one by its name" in reason for reason in unread)
    assert read(dump)[0].dump is not None


def test_the_later_of_two_dumps_is_the_state(tmp_path, before):
    captured, unread = read(before, copied(tmp_path / "second", "02-one-removed", *LISTS, "kernel_page_tables"))
    assert captured.dump.path.startswith(str(tmp_path / "second"))
    assert captured.earlier_dump.path.startswith(str(before))
    assert not any("page-table dump" in reason for reason in unread)


@pytest.mark.parametrize(
    ("name", "earlier"),
    [
        ("earlier_page_tables", True),
        ("a/before.txt", True),
        ("kernel_page_tables.old", True),
        ("x.before.gz", True),
        ("before/kernel_page_tables", False),
        ("foldername", False),
    ],
)
def test_names_that_say_earlier(name, earlier):
    assert is_named_earlier(name) is earlier
