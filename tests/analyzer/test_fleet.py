"""Many bundles: no bad one stops the rest, an interrupted run goes on, the results are the same bytes."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from analyzer.fleet.find import find_bundles
from analyzer.fleet.local import Limits
from analyzer.fleet.run import run_fleet
from analyzer.fleet.store import State, query
from analyzer.fleet.unit import audit_bundle, content_hash
from parsers.errors import InputError, UsageError
from tests.analyzer.conftest import CAPTURES
from tests.analyzer.fleets import bundle, digests, end_all, misbehaving_rule, servers, start, until

QUICK = Limits(60.0, 4 << 30)
ROOT = CAPTURES.parents[1]
ENDLESS = f"SELECT count(*) FROM {', '.join(f'findings t{n}' for n in range(30))}"
SOUND = "dimm-6.12/02-dimm-online"


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    end_all()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five captures of one boot, audited."""
    folder = tmp_path_factory.mktemp("results")
    run_fleet([str(CAPTURES / "pmem-6.12-vuln"), str(CAPTURES / "pmem-6.12-fixed")], folder, jobs=2, limits=QUICK)
    return folder


def statuses(results: Path) -> dict[str, str]:
    return dict(query(results, "SELECT host, status FROM bundles")[1])


# --- finding bundles ---


def test_bundles_are_found_in_order_with_the_host_that_they_are_of(tmp_path: Path) -> None:
    for name in ("b/host2", "a/host1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "kernel_page_tables").touch()
    (tmp_path / "a/host3.tar.gz").touch()
    (tmp_path / "a/notes.md").touch()
    assert [(one.path, one.host) for one in find_bundles([str(tmp_path)])] == [
        (f"{tmp_path}/a/host1", "a/host1"),
        (f"{tmp_path}/a/host3.tar.gz", "a/host3"),
        (f"{tmp_path}/b/host2", "b/host2"),
    ]


def test_a_copied_tree_is_one_bundle(tmp_path: Path) -> None:
    memory = tmp_path / "host1/sys/devices/system/memory/memory0"
    memory.mkdir(parents=True)
    (memory / "state").write_text("online\n")
    (tmp_path / "host1/proc").mkdir()
    (tmp_path / "host1/proc/iomem").touch()
    assert [one.host for one in find_bundles([str(tmp_path)])] == ["host1"]


def test_a_relative_path_is_the_same_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "host1")
    monkeypatch.chdir(tmp_path)
    assert list(find_bundles(["host1"])) == list(find_bundles([str(tmp_path / "host1")]))


def test_a_list_may_name_what_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"# hosts\n\n{tmp_path}/gone\n{bundle(tmp_path / 'host1')}\n")
    assert [one.host for one in find_bundles([f"@{tmp_path}/list"])] == ["gone", "host1"]


def test_a_list_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = io.TextIOWrapper(io.BytesIO(f"{bundle(tmp_path / 'host1')}\n".encode()))
    monkeypatch.setattr(sys, "stdin", listed)
    assert [one.host for one in find_bundles(["@-"])] == ["host1"]


def test_a_path_or_list_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    for name in (tmp_path / "none", f"@{tmp_path}/none"):
        with pytest.raises(InputError, match=r"no such bundle|No such file"):
            list(find_bundles([str(name)]))


def test_nothing_to_audit_is_refused(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = ptaudit("fleet", tmp_path / "empty", "-o", tmp_path / "results")
    assert (done.status, done.out) == (2, "")
    assert "no bundle in it" in done.err


# --- the unit of work ---


def test_content_is_names_and_bytes(tmp_path: Path) -> None:
    one = bundle(tmp_path / "one")
    same = shutil.copytree(one, tmp_path / "same")
    assert content_hash(one) == content_hash(same)
    (same / "uname").rename(same / "osrelease")
    assert content_hash(one) != content_hash(same)


def test_the_machine_is_what_the_log_says(tmp_path: Path) -> None:
    log = tmp_path / "dmesg"
    log.write_text("[    0.000000] Linux version 6.12.117\n[    0.000000] DMI: Acme R1, BIOS 1.2 01/02/2025\n")
    assert audit_bundle(str(tmp_path))["machine"] == "Acme R1"
    assert audit_bundle(str(CAPTURES / SOUND / "uname"))["machine"] is None


def test_a_result_is_plain_data() -> None:
    result = audit_bundle(str(CAPTURES / SOUND))
    assert result["status"] == "audited"
    assert json.loads(json.dumps(result)) == result


# --- runs ---


def test_what_bundles_do_stays_in_their_process(tmp_path: Path) -> None:
    (tmp_path / "plugin").mkdir()
    environment = misbehaving_rule(tmp_path / "plugin")
    fleet = tmp_path / "fleet"
    for what in ("hang", "hog", "die", "parent", "noise", "fine"):
        bundle(fleet / what, release=f"6.12.1-{what}", source=SOUND)
    (fleet / "broken").mkdir()
    (fleet / "broken/kernel_page_tables").write_bytes(b"\0\1\2")
    process = start(fleet, "-o", tmp_path / "r", "-j", 2, "--timeout", 5, "--memory", 512, env=environment)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 4, err
    assert statuses(tmp_path / "r") == {
        "broken": "unreadable",
        "die": "crashed",
        "fine": "audited",
        "hang": "timeout",
        "hog": "memory",
        "noise": "audited",
        "parent": "crashed",
    }
    assert "took longer than 5 s" in out
    assert "ended with -9" in out
    assert "Traceback" not in err
    until(lambda: not servers(environment))


def test_the_second_run_audits_only_what_changed(tmp_path: Path) -> None:
    fleet, results = tmp_path / "fleet", tmp_path / "r"
    first, second = bundle(fleet / "one"), bundle(fleet / "two")
    assert run_fleet([str(fleet)], results, jobs=2, limits=QUICK) == Counter(audited=2)
    before = digests_of_tables(results)
    assert run_fleet([str(fleet)], results, jobs=2, limits=QUICK) == Counter(unchanged=2)
    assert digests_of_tables(results) == before
    (first / "iomem").unlink()
    assert run_fleet([str(fleet)], results, jobs=2, limits=QUICK) == Counter(audited=1, unchanged=1)
    assert digests_of_tables(results) != before
    shutil.rmtree(second)
    run_fleet([str(fleet)], results, jobs=2, limits=QUICK)
    assert list(statuses(results)) == ["one"]


def digests_of_tables(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in results.glob("*.parquet") if path.name != "timings.parquet"}


def test_another_version_of_ptaudit_audits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(tmp_path / "fleet/one")
    run_fleet([str(tmp_path / "fleet")], tmp_path / "r", jobs=1, limits=QUICK)
    monkeypatch.setattr("analyzer.fleet.store.version", lambda _: "99.0")
    assert run_fleet([str(tmp_path / "fleet")], tmp_path / "r", jobs=1, limits=QUICK) == Counter(audited=1)


def test_a_bundle_named_twice_is_audited_once(tmp_path: Path) -> None:
    one = str(bundle(tmp_path / "one"))
    assert run_fleet([one, one, str(tmp_path)], tmp_path / "r", jobs=2, limits=QUICK) == Counter(audited=1)


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(os.fsencode(tmp_path) + b"/h\xf6st <b>'\n")
    bundle(Path(name))
    for expected in (Counter(audited=1), Counter(unchanged=1)):
        assert run_fleet([name], tmp_path / "r", jobs=1, limits=QUICK) == expected
    assert statuses(tmp_path / "r") == {"h\\xf6st <b>'\n": "audited"}


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with State(tmp_path / "r"), pytest.raises(UsageError, match="another run"):
        State(tmp_path / "r")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "kill -9"])
def test_an_interrupted_run_goes_on_to_the_same_results(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "plugin").mkdir()
    environment = misbehaving_rule(tmp_path / "plugin")
    fleet = tmp_path / "fleet"
    for number in range(20):
        bundle(fleet / f"host{number:02}", release="6.12.1-slow")
    whole = start(fleet, "-o", tmp_path / "whole", "-j", 2, env=environment)
    assert whole.wait(120) == 1
    whole.communicate()

    process = start(fleet, "-o", tmp_path / "r", "-j", 2, env=environment)
    wal = tmp_path / "r/state.sqlite-wal"
    until(lambda: wal.exists() and wal.read_bytes().count(b'"status":"audited"') >= 3)
    children = servers(environment)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (130 if how is signal.SIGINT else -9)
    assert children
    until(lambda: not servers(environment))

    again = start(fleet, "-o", tmp_path / "r", "-j", 2, env=environment)
    out, _ = again.communicate(timeout=120)
    assert "unchanged" in out
    assert digests(tmp_path / "r") == digests(tmp_path / "whole")


def test_exit_status_is_that_of_all_bundles_also_of_unchanged_ones(ptaudit, tmp_path: Path) -> None:
    bundle(tmp_path / "fleet/one")
    for _ in range(2):
        assert ptaudit("fleet", "-o", tmp_path / "r", tmp_path / "fleet").status == 1
    bundle(tmp_path / "sound/one", source=SOUND)
    assert ptaudit("fleet", tmp_path / "sound", "-o", tmp_path / "s").status == 0
    assert ptaudit("fleet", tmp_path / "sound", "-o", tmp_path / "s", "--fail-on", "info").status == 1


def test_the_summary_names_hosts_rules_kernels_and_what_was_not_decided(ptaudit, tmp_path: Path) -> None:
    done = ptaudit("fleet", CAPTURES / "pmem-6.12-vuln", "-o", tmp_path / "r")
    blocks = {part.splitlines()[0]: part for part in done.out.split("\n\n") if part.strip()}
    assert "02-one-removed  TRC-07 VMM-02" in blocks["Damaged now"]
    assert "01-three-namespaces  TRC-08 VMM-01" in blocks["One unplug from an oops"]
    assert "6.12.117" in blocks["Findings by kernel and machine"]
    assert "crash dump" in blocks["Could not be decided"]


# --- query and diff ---


def test_query(ptaudit, results: Path) -> None:
    done = ptaudit(
        "fleet", "query", "SELECT host, rule FROM findings WHERE severity = 'critical' ORDER BY rule", "-o", results
    )
    assert done.out == "host            rule\n02-one-removed  TRC-07\n02-one-removed  VMM-02\n"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SELECT * FROM read_text('{results}/state.sqlite')",
        "COPY (SELECT 1) TO '{results}/findings.parquet'",
        "ATTACH '{results}/other.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT 1; SELECT 2",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{results}/findings.parquet'",
        "SELECT * FROM nothing",
        "",
    ],
)
def test_query_reaches_nothing_else(ptaudit, results: Path, sql: str) -> None:
    before = (results / "findings.parquet").read_bytes()
    done = ptaudit("fleet", "query", sql.replace("{results}", str(results)), "-o", results)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("ptaudit: query: ")
    assert (results / "findings.parquet").read_bytes() == before


@pytest.mark.parametrize(
    ("sql", "option", "value", "said"),
    [
        (
            f"SELECT count(*) FROM {', '.join(f'findings t{n}' for n in range(30))}",
            "--timeout",
            2,
            "no answer after 2 s",
        ),
        ("SELECT repeat('x', 1200000000) AS a", "--memory", 128, "takes more than 128 MiB of memory"),
        ("SELECT string_agg(repeat('y', 1000), '') FROM range(2000000)", "--memory", 128, "takes more than 128 MiB"),
        ("SELECT * FROM range(100000000)", "--memory", 256, "more than 1000000 rows: add a LIMIT"),
    ],
    ids=["time", "memory of one text", "memory of many rows", "rows"],
)
def test_query_is_bounded(
    ptaudit,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sql: str,
    option: str,
    value: int,
    said: str,
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    begin = time.monotonic()
    done = ptaudit("fleet", "query", sql, "-o", results, option, value)
    assert (done.status, done.out) == (2, ""), done.err
    assert said in done.err
    assert time.monotonic() - begin < 60
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_query_ends_on_a_signal(results: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "analyzer.cli", "fleet", "query", ENDLESS, "-o", str(results)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    end = time.monotonic() + 60
    while not list(tmp_path.iterdir()) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (128 + number, "")
    assert err == ("ptaudit: interrupted\n" if number == signal.SIGINT else "")
    assert not list(tmp_path.iterdir())


def test_query_without_results(ptaudit, tmp_path: Path) -> None:
    done = ptaudit("fleet", "query", "SELECT 1", "-o", tmp_path)
    assert (done.status, done.err) == (2, f"ptaudit: {tmp_path}: no bundles.parquet: no results of a fleet\n")


def test_diff_says_who_got_worse_and_who_better(ptaudit, tmp_path: Path) -> None:
    old, new = tmp_path / "monday", tmp_path / "tuesday"
    bundle(old / "one", source="pmem-6.12-vuln/01-three-namespaces")
    bundle(new / "one", source="pmem-6.12-vuln/02-one-removed")
    bundle(old / "gone", source=SOUND)
    bundle(new / "fresh", source=SOUND)
    bundle(old / "lost", source=SOUND)
    (new / "lost").mkdir()
    (new / "lost/iomem").write_bytes(b"\0")
    for day in (old, new):
        ptaudit("fleet", day, "-o", f"{day}-results")
    done = ptaudit("fleet", "diff", f"{old}-results", f"{new}-results")
    changes = [tuple(line.split()[:4]) for line in done.out.splitlines()[1:]]
    assert done.status == 1
    assert ("worse", "one", "VMM-02", "critical") in changes
    assert ("better", "one", "VMM-01", "high") in changes
    assert {line[:2] for line in changes} >= {("gone", "gone"), ("new", "fresh"), ("unreadable", "lost")}
    assert ptaudit("fleet", "diff", f"{old}-results", f"{old}-results").status == 0


def test_diff_refuses_hosts_that_it_cannot_tell_apart(ptaudit, tmp_path: Path) -> None:
    bundle(tmp_path / "a/host", source=SOUND)
    bundle(tmp_path / "b/host", source=SOUND)
    ptaudit("fleet", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "r")
    done = ptaudit("fleet", "diff", tmp_path / "r", tmp_path / "r")
    assert done.status == 2
    assert "several bundles are of the host host" in done.err


# --- the page ---


def test_the_page_holds_everything_and_escapes_it(ptaudit, tmp_path: Path) -> None:
    bundle(tmp_path / "fleet/<script>alert(1)</script>")
    ptaudit("fleet", tmp_path / "fleet", "-o", tmp_path / "r")
    page = (tmp_path / "r/summary.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for outside in ("http://", "https://", "src=", "@import", "url("):
        assert outside not in page


@pytest.mark.parametrize("command", ["run", "query", "diff"])
def test_help_fits_a_terminal_and_shows_an_example(ptaudit, command: str) -> None:
    lines = ptaudit("fleet", command, "--help").out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("    ptaudit fleet") for line in lines)
