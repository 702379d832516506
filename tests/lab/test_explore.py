"""The explorer without QEMU: what is drawn, what is made of it, what shrinks, what is kept."""

from __future__ import annotations

import io
import json
import random
import socket
import subprocess
import tarfile
import threading
import time
from collections import Counter

import pytest

from fixtures.lab.explore import guest
from fixtures.lab.explore.__main__ import MACHINES, before, choosing, granule
from fixtures.lab.explore.atlas import Atlas, read_case, step_of
from fixtures.lab.explore.draw import HIGH, LOW, Drawer, shape_of
from fixtures.lab.explore.guest import HungError, Machine, QemuGuest, Result, _result, _unpack
from fixtures.lab.explore.kernels import HERE
from fixtures.lab.explore.operations import VERBS, Operation, from_record, parse, script_of, smaller, to_record
from fixtures.lab.explore.sequence import carried_out, play, transitions
from fixtures.lab.explore.shrink import shrink
from fixtures.lab.explore.world import Namespace, World, look_around
from tests.lab.toy import BLOCK, ToyAuditor, ToyGuest

CREATE = Operation("create", size=32 << 20, how="devdax mem 2M")
TEAR = Operation("disable", "namespace0.0")
EVERYTHING = World(
    block_bytes=BLOCK,
    blocks={8: "online", 33: "online", 34: "offline", 35: "offline", 36: "online"},
    boot=frozenset({8}),
    namespaces={
        "namespace0.0": Namespace("namespace0.0", "devdax", active=True, device="dax0.0"),
        "namespace0.1": Namespace("namespace0.1", "raw", active=False),
    },
    devices=("dax0.0",),
    ram=("dax0.1",),
    dimms={"d1": (LOW, 4 * BLOCK)},
)


def drawn(seed, count=300, world=EVERYTHING, verbs=tuple(VERBS)):
    drawer = Drawer(random.Random(seed), verbs, 2 << 20)
    return [drawer.draw(world) for _ in range(count)]


def played(tmp_path, operations, *, fresh=lambda _: True, **toy):
    return play(ToyGuest(**toy), ToyAuditor(), choosing(operations, None, len(operations)), tmp_path / "run", fresh)


# Operations.


def test_operations_survive_json():
    for operation in drawn(1):
        assert from_record(json.loads(json.dumps(to_record(operation)))) == operation


def test_operations_survive_text():
    for operation in drawn(1):
        assert parse(str(operation)) == operation


@pytest.mark.parametrize("text", ["fly 3", "plug d1", "walk on", "create lots", "failing x 0 60: fly"])
def test_text_that_is_not_an_operation_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def test_dimms_that_a_leaf_of_1_gib_can_map_are_drawn():
    """On a machine without DIMMs one of five is such a bank: a block of it cannot go offline alone (LIN-04)."""
    empty = World(block_bytes=BLOCK)
    plugs = [Drawer(random.Random(seed), ("plug",), 2 << 20).draw(empty) for seed in range(400)]
    banks = [one for one in plugs if one.size >= 1 << 30 and one.address % (1 << 30) == 0]
    assert 0.1 < len(banks) / len(plugs) < 0.4


def test_device_dax_is_aligned_to_what_the_page_size_allows():
    drawer = Drawer(random.Random(1), ("create",), 2 << 20, 16384)
    aligns = {one.how.split()[-1] for one in (drawer.draw(World(block_bytes=BLOCK)) for _ in range(50))}
    assert aligns == {"16K", "raw"}


def test_guest_scripts_are_shell(tmp_path):
    scripts = {script_of(one) for one in drawn(2)} | {script_of(part) for one in drawn(2) for part in one.parts}
    (tmp_path / "all.sh").write_text("\n".join(sorted(scripts)))
    done = subprocess.run(["sh", "-n", tmp_path / "all.sh"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_smaller_operations_are_smaller_and_whole():
    big = Operation("together", parts=(Operation("plug", "d1", LOW, 4 * BLOCK), Operation("online", "33 34 35")))
    found = list(smaller(big, BLOCK))
    assert big.parts[0] in found
    assert big.parts[1] in found
    for one in found:
        assert sum(inner.size for inner in one.every) <= 4 * BLOCK
        assert all(inner.size % BLOCK == 0 for inner in one.every)
    assert big not in found


# Drawing.


def test_same_seed_draws_the_same():
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def test_only_what_is_possible_is_drawn():
    for one in (inner for operation in drawn(3, 600) for inner in operation.every):
        if one.verb == "online":
            assert set(map(int, one.what.split())) <= {34, 35}
        elif one.verb == "offline":
            assert set(map(int, one.what.split())) <= {33, 36}
        elif one.verb == "disable":
            assert one.what == "namespace0.0"
        elif one.verb == "enable":
            assert one.what == "namespace0.1"
        elif one.verb == "create":
            assert one.size % (2 << 20) == 0
            assert one.size
        elif one.verb == "plug":
            assert LOW + 4 * BLOCK <= one.address + one.size <= HIGH


def test_empty_world_allows_something_for_every_machine():
    for name, machine in MACHINES.items():
        assert drawn(4, 30, World(block_bytes=BLOCK), tuple(machine["verbs"])), name


def test_every_verb_of_a_machine_is_known_and_drawn():
    verbs = {verb for machine in MACHINES.values() for verb in machine["verbs"]}
    assert verbs == set(VERBS)
    assert {inner.verb for one in drawn(5, 2000) for inner in one.every} == verbs


def test_what_was_often_done_is_drawn_less_often():
    verbs, touched = ("walk", "auto"), Counter({shape_of(Operation("walk"), EVERYTHING): 1000})
    fair = [one.verb for one in drawn(6, 200, EVERYTHING, verbs)]
    drawer = Drawer(random.Random(6), verbs, 2 << 20, 4096, touched)
    bored = [drawer.draw(EVERYTHING).verb for _ in range(60)]
    assert bored.count("walk") / len(bored) < fair.count("walk") / len(fair) / 2


# What is there.


def test_world_is_read_from_a_capture(tmp_path):
    (tmp_path / "memory_blocks").write_text("block_size_bytes:8000000\nmemory33/state:online\nmemory8/state:offline\n")
    devices = "devices:\nlrwxrwxrwx 1 0 dax0.0 -> ../x/dax0.0\nlrwxrwxrwx 1 0 dax0.1 -> ../x/dax0.1\n"
    (tmp_path / "dax").write_text(f"/sys/bus/dax/{devices}\n/sys/bus/dax/drivers/kmem:\nlrwx 1 0 dax0.1 -> ../dax0.1\n")
    listed = [
        {"dev": "namespace0.1", "mode": "raw", "size": 0},
        {"dev": "namespace0.0", "mode": "devdax", "size": 5, "daxregion": {"devices": [{"chardev": "dax0.0"}]}},
    ]
    (tmp_path / "ndctl.json").write_text(json.dumps({"regions": [{"namespaces": listed}]}))
    world = look_around(tmp_path, World(boot=frozenset({8}), dimms={"d1": (1, 2)}))
    assert (world.block_bytes, world.blocks) == (BLOCK, {8: "offline", 33: "online"})
    assert world.hot("online") == [33]
    assert world.hot("offline") == []
    assert world.namespaces == {"namespace0.0": Namespace("namespace0.0", "devdax", active=True, device="dax0.0")}
    assert (world.devices, world.ram, world.dimms) == (("dax0.0",), ("dax0.1",), {"d1": (1, 2)})


def test_cut_list_of_namespaces_is_an_empty_one(tmp_path):
    (tmp_path / "ndctl.json").write_text('[{"dev": "namesp')
    assert look_around(tmp_path, World()).namespaces == {}


# Playing.


def test_bug_is_found_by_drawing(tmp_path):
    drawer = Drawer(random.Random(11), ("create", "disable", "enable", "walk"), 2 << 20)
    found = play(ToyGuest(), ToyAuditor(), choosing([], drawer, 40), tmp_path / "run", lambda _: True)
    assert "VMM-02" in found.shown()


def test_kernel_without_bug_has_no_case(tmp_path):
    drawer = Drawer(random.Random(11), ("create", "disable", "enable", "walk"), 2 << 20)
    found = play(ToyGuest(has_bug=False), ToyAuditor(), choosing([], drawer, 40), tmp_path / "run", lambda _: True)
    assert (found.cases, found.steps) == ([], 40)


def test_lost_guest_is_a_case_and_ends_the_sequence(tmp_path):
    found = played(tmp_path, [CREATE, CREATE, TEAR, Operation("disable", "namespace0.1"), CREATE])
    assert found.steps == 4
    assert ("guest", "disable lost the guest, oops") in {(one.referee, one.key) for one in found.cases}
    assert "toy died" in next(one.text for one in found.cases if one.referee == "guest")


def test_dump_is_taken_for_what_is_fresh_and_at_the_end(tmp_path):
    known = played(tmp_path, [CREATE, CREATE, TEAR, CREATE], fresh=lambda _: False)
    assert known.dumps == 1
    assert not list((tmp_path / "run").glob("*.core"))
    new = played(tmp_path, [CREATE, CREATE, TEAR, CREATE])
    assert new.dumps == 2
    assert [path.name for path in (tmp_path / "run").glob("*.core")] == ["03-disable.core"]
    assert not list((tmp_path / "run").glob("*.elf"))


def test_finding_that_stays_is_one_case(tmp_path):
    found = played(tmp_path, [CREATE, CREATE, TEAR, CREATE, CREATE])
    assert [one.step for one in found.cases if one.key == "VMM-02"] == [3]


def test_transitions_are_pairs_of_unlike_states():
    before = ((0, 4, "a"), (4, 8, "b"))
    after = ((0, 2, "a"), (2, 6, "c"), (8, 9, "d"))
    assert transitions(before, after) == [("a", "c"), ("b", "c"), ("b", "nothing"), ("nothing", "d")]
    assert transitions(before, before) == []


# Shrinking.


def test_sequence_shrinks_to_what_the_bug_needs(tmp_path):
    long = [
        Operation("walk"), CREATE, Operation("plug", "d1", LOW, BLOCK), CREATE, Operation("online", "32"), CREATE, TEAR,
        Operation("walk"),
    ]  # fmt: skip

    def shows(operations):
        return "VMM-02" in played(tmp_path, operations).shown()

    least = shrink(long, shows, 2 << 20, tries=100)
    assert [one.verb for one in least] == ["create", "create", "disable"]
    assert [one.size >> 20 for one in least] == [2, 2, 0]


def test_shrinking_stops_after_its_tries():
    tried = []

    def shows(operations):
        tried.append(operations)
        return False

    long = [CREATE] * 30
    assert shrink(long, shows, 2 << 20, tries=5) == long
    assert len(tried) == 5


# Keeping.


def test_case_is_kept_once_and_can_be_played_again(tmp_path):
    atlas = Atlas(tmp_path / "atlas", "toy")
    operations = [CREATE, CREATE, TEAR, CREATE]
    for seed in (1, 2):
        found = played(tmp_path, operations, fresh=atlas.fresh)
        new = atlas.enter(found, "pmem", seed, tmp_path / "run")
        assert [one.key for one in new] == (["VMM-02"] if seed == 1 else [])
    (kept,) = (tmp_path / "atlas/toy/cases").iterdir()
    assert sorted(path.name for path in kept.iterdir()) == ["02-create", "03-disable", "03-disable.core", "case.json"]
    machine, again, record = read_case(kept)
    assert (machine, again, record["seed"], record["blame"]) == ("pmem", operations[:3], 1, "kernel")
    assert "VMM-02" in played(tmp_path, again).shown()
    assert atlas.figures["cases"][kept.name]["times"] == 2


def test_figures_go_on_where_a_run_ended(tmp_path):
    atlas = Atlas(tmp_path, "toy")
    seeds = [atlas.seed(), atlas.seed()]
    atlas.enter(played(tmp_path, [CREATE, CREATE, TEAR]), "pmem", seeds[-1], tmp_path / "run")
    again = Atlas(tmp_path, "toy")
    assert again.seed() == 3
    assert (again.figures["sequences"], again.figures["steps"]) == (1, 3)
    assert not again.fresh(played(tmp_path, [CREATE, CREATE, TEAR]).cases[0])
    assert again.beginning("pmem", 12345) == [CREATE, CREATE, TEAR]
    assert again.beginning("dimm", 12345) == []
    assert "1 sequences, 3 steps" in again.summary()


# Guests.


def test_region_of_a_machine_is_aligned_to_what_is_drawn():
    assert granule("pmem-fine") == 2 << 20
    assert granule("pmem") == 16 << 20


def test_qemu_gets_the_machine(tmp_path):
    machine = Machine("x", tmp_path / "Image", tmp_path / "initrd", (), pmem=0x82000000, virtio_mem=1 << 33, nodes=2)
    words = machine.qemu(tmp_path, tmp_path / "x.state")
    assert "nvdimm,id=nvdimm0,memdev=nv0,label-size=2M,addr=0x82000000" in words
    assert f"exec:cat {tmp_path}/x.state" in words
    assert words.count("-numa") == 2
    assert "nokaslr" in words[words.index("-append") + 1]


def test_result_says_what_the_kernel_let():
    found = _result("ndctl: x\n@done disable:namespace0.1\n@refused online:memory33\nstatus 0")
    assert found.done == {"disable:namespace0.1": True, "online:memory33": False}
    assert isinstance(found, Result)


@pytest.fixture
def silent(tmp_path, monkeypatch):
    """A guest that has been asked and does not answer, and the other end of its port."""
    monkeypatch.setattr(guest, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(guest, "OOPS_SECONDS", 0.05)
    one = QemuGuest.__new__(QemuGuest)
    one.folder, one.number = tmp_path, 0
    one.port, other = socket.socketpair()
    one.stream = one.port.makefile("rb")
    yield one, other
    for end in (one.stream, one.port, other):
        end.close()


def test_guest_that_oopsed_is_not_waited_for(silent, tmp_path):
    one, _ = silent
    (tmp_path / "serial.log").write_text("[ 1.0] WARNING: x\n[ 2.0] Internal error: Oops: 96000007 [#1]\n")
    start = time.monotonic()
    with pytest.raises(HungError, match="after an oops"):
        one.ask("ndctl disable-namespace namespace0.0", 60)
    assert time.monotonic() - start < 30


def test_guest_that_is_slow_is_waited_for(silent, tmp_path):
    one, other = silent
    (tmp_path / "serial.log").write_text("[ 1.0] WARNING: x\n[ 1.0] ---[ end trace 0000000000000000 ]---\n")
    timer = threading.Timer(0.2, other.sendall, (b"1 0 2\nok",))
    timer.start()
    assert one.ask("true", 60) == (0, b"ok")
    timer.join()
    with pytest.raises(HungError, match=r"^true$"):
        one.ask("true", 0.1)


def packed(name, content=b"x"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_capture_stays_in_its_directory(tmp_path):
    _unpack(packed("./iomem"), tmp_path / "in")
    assert (tmp_path / "in/iomem").read_bytes() == b"x"
    for bad in (packed("../out"), packed("iomem", b"x" * 4000)[:900]):
        with pytest.raises(HungError, match="cannot be read"):
            _unpack(bad, tmp_path / "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["init", "lib.sh"])
def test_guest_programs_are_shell(name):
    done = subprocess.run(["sh", "-n", HERE / "guest" / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_sequence_ends_when_the_time_is_over():
    walk = Operation("walk")
    assert before(time.monotonic() + 60, choosing([walk], None, 1))(World()) == walk
    assert before(time.monotonic() - 1, choosing([walk], None, 1))(World()) is None


def test_time_is_counted_by_what_it_was_spent_on(tmp_path):
    one = played(tmp_path, [CREATE, TEAR])
    assert {"perform", "capture", "look"} <= set(one.spent)
    assert sum(one.spent.values()) <= one.seconds
    atlas = Atlas(tmp_path / "explored", "toy")
    atlas.enter(one, "pmem", 1, tmp_path / "run")
    assert "perform" in atlas.summary()


def test_captures_of_a_long_sequence_are_those_of_the_step(tmp_path):
    names = ["09-walk", "10-walk", "99-walk", "100-offline", "100-offline.core", "101-walk", "notes"]
    assert [step_of(tmp_path / name) for name in names] == [9, 10, 99, 100, 100, 101, -1]
    one = played(tmp_path, [Operation("walk")] * 99 + [CREATE, Operation("create", size=32 << 20), TEAR])
    (case,) = one.cases
    assert case.step == 102
    Atlas(tmp_path / "explored", "toy").enter(one, "pmem", 1, tmp_path / "run")
    kept = {path.name for path in (tmp_path / "explored/toy/cases" / case.name).iterdir() if path.is_dir()}
    assert kept == {"101-create", "102-disable"}


def test_steps_that_changed_nothing_are_kept_with_what_was_said(tmp_path):
    steps = ["plug d1 128M 0x100000000", "plug d1 128M 0x100000000", "disable namespace0.0", "online online 32"]
    assert played(tmp_path, [*map(parse, steps)]).refused == {2: "", 3: ""}


@pytest.mark.parametrize(("said", "did"), [("has 536870912", True), ("has 270532608", False), ("has None", False)])
def test_virtio_mem_came_if_it_has_what_was_asked_for(said, did):
    assert carried_out(parse("resize 512M"), Result(said, {}), World(), World()) is did
