"""Pages of a kdump that other processes decompress are those that this one would."""

import gc
import os
import signal
import time

import numpy as np
import pytest

from parsers.vmcore import kdump as kdump_module
from parsers.vmcore import readers
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore import cores
from tests.parsers.vmcore.cores import forty_tables, kdump, vmcoreinfo


@pytest.fixture(scope="module")
def tables():
    return forty_tables()


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setattr(kdump_module, "_MANY", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(2))


@pytest.fixture
def forked(monkeypatch):
    """The processes that are made."""
    fork, pids = os.fork, []

    def noted():
        pid = fork()
        if pid:
            pids.append(pid)
        return pid

    monkeypatch.setattr(os, "fork", noted)
    return pids


def opened(tmp_path, tables, codec="zlib", block_size=4096):
    """The memory of a kdump, and addresses in it, one of them missing."""
    memory, path = tables.memory, tmp_path / "kdump"
    path.write_bytes(kdump(memory, memory.units, vmcoreinfo(), machine="aarch64", block_size=block_size, codec=codec))
    return open_dump(path).memory, np.append(memory.units, 1) * np.uint64(4096)


def scanned(memory, pas, room=3, page_size=4096):
    pieces = [(pages.copy(), there) for _, pages, there in memory.scan(pas, np.empty((room, page_size), np.uint8))]
    return np.concatenate([pages for pages, _ in pieces]), np.concatenate([there for _, there in pieces])


@pytest.mark.parametrize("block_size", [4096, 65536])
@pytest.mark.parametrize("codec", ["none", "zlib", "lzo", "snappy", "zstd"])
def test_pages_and_their_presence(tmp_path, tables, codec, block_size, forked):
    memory, pas = opened(tmp_path, tables, codec, block_size)
    expected, held = memory.read_pages(pas)
    for _ in range(2):  # the processes are used again
        pages, present = scanned(memory, pas)
        np.testing.assert_array_equal(pages, expected)
        assert present.tolist() == held.tolist() == [True] * (pas.size - 1) + [False]
    assert len(forked) == 2
    wide = np.unique(pas // np.uint64(16384)) * np.uint64(16384)
    np.testing.assert_array_equal(scanned(memory, wide, 1, 16384)[1], memory.read_pages(wide, 16384)[1])
    del memory
    gc.collect()
    for pid in forked:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.fixture
def handled():
    """Signals have a handler in this process, as they have while a command runs."""
    before = {name: signal.signal(name, lambda *_: None) for name in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for name, handler in before.items():
        signal.signal(name, handler)


@pytest.mark.usefixtures("handled")
@pytest.mark.parametrize("name", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_dies_costs_nothing_but_time(tmp_path, tables, forked, name):
    memory, pas = opened(tmp_path, tables)
    expected, held = memory.read_pages(pas)
    scanned(memory, pas)
    os.kill(forked[0], name)
    for _ in range(500):
        if ended := os.waitid(os.P_PID, forked[0], os.WEXITED | os.WNOWAIT | os.WNOHANG):
            break
        time.sleep(0.01)
    assert ended is not None
    assert ended.si_status == name
    pages, present = scanned(memory, pas)
    np.testing.assert_array_equal(pages, expected)
    assert present.tolist() == held.tolist()


def test_without_processes_it_is_read_here(tmp_path, tables, monkeypatch):
    def refused():
        raise BlockingIOError

    memory, pas = opened(tmp_path, tables)
    monkeypatch.setattr(os, "fork", refused)
    np.testing.assert_array_equal(scanned(memory, pas)[0], memory.read_pages(pas)[0])


def test_a_reading_that_is_given_up_does_not_mix_with_the_next(tmp_path, tables, forked):
    memory, pas = opened(tmp_path, tables)
    for _ in memory.scan(pas, np.empty((3, 4096), np.uint8)):
        break
    pages, _ = scanned(memory, pas[::-1])
    np.testing.assert_array_equal(pages, memory.read_pages(pas)[0][::-1])
    assert len(forked) == 4


def test_what_cannot_be_read_is_counted_once(tmp_path, tables, monkeypatch):
    flags, pack = cores.CODECS["zlib"]
    monkeypatch.setitem(cores.CODECS, "zlib", (flags, lambda data: pack(data)[:20]))
    memory, pas = opened(tmp_path, tables)
    _, present = scanned(memory, pas)
    assert not present.any()
    assert sum(int(one.message.split()[0]) for one in memory.diagnostics) == pas.size - 1


def test_a_process_that_fails_leaves_the_piece_to_the_caller():
    def read(units, _):
        if units[0] == 2:
            raise ValueError("cannot")
        return np.ones(units.size, np.bool_), {}

    several = readers.Readers(2, 1, read)
    pieces = [np.array([number], np.uint64) for number in range(5)]
    assert [present is None for _, present, _ in several.read(pieces)] == [False, False, True, False, False]
    several.close()
