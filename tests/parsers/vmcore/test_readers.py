"""Pages of a kdump that other processes decompress are those that this one would."""

import gc
import os
import signal
import time

import numpy as np
import pytest

from parsers.vmcore import kdump as kdump_module
from parsers.vmcore import readers
from parsers.vmcore.compared import Room
from parsers.vmcore.opening import open_dump
from tests.parsers.vmcore import cores
from tests.parsers.vmcore.cores import PageMemory, forty_tables, kdump, vmcoreinfo


@pytest.fixture(scope="module")
def tables():
    return forty_tables()


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setattr(kdump_module, "_MANY", 1)
    monkeypatch.setattr(kdump_module, "_JOB_BYTES", 1 << 16)  # several jobs
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


def scanned(memory, pas, page_size=4096):
    """Pages that processes read, those that are missing as zeros, and which are present."""
    pages, present, at = np.zeros((pas.size, page_size), np.uint8), np.zeros(pas.size, np.bool_), 0
    for one in memory.compared(pas, Room(page_size), None):
        assert one.piece.start == at
        at = one.piece.stop
        present[one.piece] = one.present
        pages[one.piece][one.present] = one.others
    assert at == pas.size
    return pages, present


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
    np.testing.assert_array_equal(scanned(memory, wide, 16384)[1], memory.read_pages(wide, 16384)[1])
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


def whole(memory, pas, may):
    """What was compared of all pages: present, regular and first words, and the others."""
    pieces = [(one.present, one.regular, one.first, one.others.copy()) for one in memory.compared(pas, Room(4096), may)]
    return [np.concatenate(column) for column in zip(*pieces, strict=True)]


def test_processes_compare_as_this_one_does(tmp_path, forked):
    tables = forty_tables()
    for number in range(3, 30):  # that map one run of pages
        for entry in range(512):
            page = 0x9000_0000 + (number << 21) + (entry << 12)
            tables.leaf(0xFFFF000000000000 + (number << 21) + (entry << 12), 3, page)
    memory, pas = opened(tmp_path, tables)
    may = np.arange(pas.size) % 5 != 0
    by_processes = whole(memory, pas, may)
    here = whole(PageMemory({int(unit): memory.read(int(unit) << 12, 4096) for unit in tables.memory.units}), pas, may)
    assert len(forked) == 2
    for one, other in zip(by_processes, here, strict=True):
        np.testing.assert_array_equal(one, other)
    assert 15 < by_processes[1].sum() < 27


def test_damage_among_pages_is_found_page_by_page(tmp_path, tables, monkeypatch, forked):
    flags, pack = cores.CODECS["zlib"]
    turn = iter(range(1000))
    bomb = pack(bytes(2 << 20))
    damaged = {3: lambda page: page[:20], 8: lambda page: b"x" + page, 9: lambda page: bomb or page, 20: pack}
    monkeypatch.setitem(cores.CODECS, "zlib", (flags, lambda data: damaged.get(next(turn), bytes)(pack(data))))
    memory, pas = opened(tmp_path, tables)
    expected, held = memory.read_pages(pas)
    assert (~held).sum() == 5
    counted = {one.message for one in memory.diagnostics}
    pages, present = scanned(memory, pas)
    np.testing.assert_array_equal(pages, expected)
    assert present.tolist() == held.tolist()
    assert len(forked) == 2
    twice = {f"{2 * int(message.split()[0])} {message.split(' ', 1)[1]}" for message in counted}
    assert {one.message for one in memory.diagnostics} == twice


def test_without_processes_it_is_read_here(tmp_path, tables, monkeypatch):
    def refused():
        raise BlockingIOError

    memory, pas = opened(tmp_path, tables)
    monkeypatch.setattr(os, "fork", refused)
    np.testing.assert_array_equal(scanned(memory, pas)[0], memory.read_pages(pas)[0])


def test_a_reading_that_is_given_up_does_not_mix_with_the_next(tmp_path, tables, forked):
    memory, pas = opened(tmp_path, tables)
    for _ in memory.compared(pas, Room(4096), None):
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
    def read(number, room):
        if number == 2:
            raise ValueError("cannot")
        room[0] = number
        return number + 10

    several = readers.Readers(2, 1, read)
    answers = [(answer, int(room[0, 0])) for answer, room in several.read(range(5))]
    assert answers[:2] == [(10, 0), (11, 1)]
    assert answers[2][0] is None
    assert answers[3:] == [(13, 3), (14, 4)]
    several.close()
