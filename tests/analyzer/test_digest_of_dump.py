"""The hash of a crash dump: of the file where it is small, of what was read where hashing it would take minutes."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from parsers.vmcore.container import open_plain

AFTER = Path(__file__).parents[2] / "fixtures" / "vmcore" / "pmem-6.12-vuln-after.core.zst"
LARGE = 1 << 43  # sparse: to read all of it would take an hour


def padded(path, size, *, byte=b""):
    """The small core with nothing after it up to ``size``, and a byte there."""
    with open_plain(AFTER) as stream:
        path.write_bytes(stream.read())
    with path.open("r+b") as file:
        file.truncate(size)
        file.seek(size - len(byte))
        file.write(byte)
    return path


def source_of(done):
    return json.loads(done.out)["sources"][0]


def test_the_hash_of_a_small_dump_is_that_of_the_file(ptaudit, tmp_path):
    path = padded(tmp_path / "vmcore", 100 << 20)
    source = source_of(ptaudit("audit", path, "--format", "json"))
    assert source["sha256_of"] == "file"
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_large_dump_is_not_read_for_its_hash(ptaudit, tmp_path):
    path = padded(tmp_path / "vmcore", LARGE)
    done = ptaudit("audit", path, "--format", "json")
    source = source_of(done)
    assert (done.status, source["sha256_of"]) == (1, "what was read")
    assert source_of(ptaudit("audit", path, "--format", "json")) == source


@pytest.mark.parametrize("change", ["size", "end", "head", "tables"])
def test_what_makes_another_dump(ptaudit, tmp_path, change):
    path = padded(tmp_path / "vmcore", LARGE)
    before = source_of(ptaudit("audit", path, "--format", "json"))
    if change == "size":
        os.truncate(path, LARGE + 4096)
    elif change == "end":
        padded(path, LARGE, byte=b"\1")
    else:
        with path.open("r+b") as file:
            data = file.read(8 << 20)
            descriptor = data.rindex(b"\x68\0") - 6  # the attributes of some leaf
            at = 8 if change == "head" else descriptor  # in the identification, which readers skip
            file.seek(at)
            file.write(bytes([data[at] ^ 0x10]))
    after = source_of(ptaudit("audit", path, "--format", "json"))
    assert after["sha256"] != before["sha256"]


def test_a_large_dump_that_cannot_be_read_is_not_hashed_whole(ptaudit, tmp_path):
    folder = tmp_path / "capture"
    folder.mkdir()
    with (folder / "vmcore").open("wb") as file:
        file.write(b"KDUMP   " + bytes(4096))
        file.truncate(LARGE)
    (folder / "uname").write_text("Linux host 6.12.50 #1 SMP aarch64 GNU/Linux\n")
    done = ptaudit("audit", folder, "--format", "json")
    assert {one["kind"]: one["sha256_of"] for one in json.loads(done.out)["sources"]} == {
        "uname": "file",
        "vmcore": "what was read",
    }


def test_two_copies_of_a_large_dump_are_one_moment(ptaudit, tmp_path):
    copies = [padded(tmp_path / name, LARGE) for name in ("one", "two")]
    unread = json.loads(ptaudit("audit", *copies, "--format", "json").out)["unread"]
    assert unread == [{"path": str(copies[1]), "reason": f"the same content as {copies[0]}"}]
