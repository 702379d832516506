"""Exit statuses that can be trusted: 1 is findings and nothing else, and what fails inside is named."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analyzer.output import visible
from tests.analyzer.conftest import CAPTURES

ROOT = CAPTURES.parents[1]
SOUND = CAPTURES / "dimm-6.12/02-dimm-online"

_PLUG_IN = '''
from parsers.uname import KernelRelease
from rules.finding import Impact, Severity
from rules.rule import rule

@rule(code="BAD-01", name="misbehaving", severity=Severity.HIGH, impact=Impact.INFORMATIONAL{needs})
def misbehaving(release: KernelRelease):
    """Misbehaves.

    What it means: nothing.
    How it is detected: it is not.
    When it is not a problem: always.
    What to do: nothing.
    """
    {body}
    return []
'''


def plug_in(folder: Path, body: str, top: str = "") -> dict[str, str]:
    """An environment in which a third-party rule with that body is installed."""
    folder.mkdir(exist_ok=True)
    needs = ", needs=(KernelRelease,)" if "needs:" in (ROOT / "rules/rule.py").read_text().split("def rule(")[1] else ""
    (folder / "bad_plugin.py").write_text(top + _PLUG_IN.format(body=body, needs=needs))
    info = folder / "bad_plugin-1.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bad_plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ptaudit.rules]\nbad_plugin = bad_plugin\n")
    return os.environ | {"PYTHONPATH": f"{folder}:{ROOT}"}


def run(*arguments: object, env: dict[str, str] | None = None, python: tuple[str, ...] = (), **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": ROOT, **options}
    return subprocess.run(
        [sys.executable, *python, "-m", "analyzer.cli", *map(str, arguments)],
        env=env or os.environ | {"PYTHONPATH": str(ROOT)}, text=True, check=False, timeout=120, **options,
    )  # fmt: skip


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """What standard error says, which is one line without a traceback."""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("ptaudit: ")
    return lines[0]


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit", "ktap", "markdown"])
def test_a_rule_that_fails_is_4_and_named_in_every_format(tmp_path: Path, form: str) -> None:
    done = run("audit", SOUND, "--format", form, env=plug_in(tmp_path / "p", "raise KeyError('mem_section')"))
    assert done.returncode == 4
    assert "BAD-01 failed inside: KeyError" in done.stderr
    assert "BAD-01" in done.stdout
    assert "KeyError" in done.stdout
    if form == "sarif":
        assert json.loads(done.stdout)["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_a_rule_that_fails_leaves_no_host_clean(tmp_path: Path) -> None:
    done = run("audit", SOUND, env=plug_in(tmp_path / "p", "1 / 0"))
    assert done.stdout.startswith("blind: ")
    assert "BAD-01 failed" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("body", ["raise SystemExit(0)", "import sys; sys.exit(1)"])
def test_a_plug_in_that_ends_the_program_is_4(tmp_path: Path, body: str) -> None:
    done = run("audit", SOUND, env=plug_in(tmp_path / "p", body))
    assert done.returncode == 4
    assert "BAD-01" in done.stderr + done.stdout or "plug-in" in done.stderr


def test_a_plug_in_that_ends_the_program_when_it_is_loaded_is_not_1(tmp_path: Path) -> None:
    done = run("audit", SOUND, env=plug_in(tmp_path / "p", "pass", top="raise SystemExit(1)\n"))
    assert done.returncode in {0, 4}
    assert "plug-in" in done.stderr


def test_a_full_disk_at_standard_output_is_4() -> None:
    with Path("/dev/full").open("w") as full:
        done = run("audit", SOUND, stdout=full)
    assert done.returncode == 4
    assert "No space left" in one_line(done)


def test_a_closed_standard_output_is_4() -> None:
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m analyzer.cli audit "{SOUND}" >&-'],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert "closed" in one_line(done)


def test_a_reader_that_goes_away_is_not_findings() -> None:
    line = f'{{ "{sys.executable}" -m analyzer.cli rules --format json; echo $? >&2; }} | true'
    done = subprocess.run(["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() in {"4", "0"}


def test_a_folder_that_is_gone_is_not_reported_as_clean(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    for form in ("text", "sarif"):
        audit = f'"{sys.executable}" -P -m analyzer.cli audit "{SOUND}" --format {form}'
        line = f'cd "{gone}" && rmdir "{gone}" && exec {audit}'
        done = subprocess.run(
            ["sh", "-c", line], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 4}, done.stderr
        assert "Traceback" not in done.stderr
        gone.mkdir()


def test_no_docstrings_is_4() -> None:
    done = run("audit", SOUND, python=("-OO",))
    assert done.returncode == 4
    assert "-OO" in one_line(done)


def test_no_memory_is_4() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29))"
    code = f"{limit}; import sys, analyzer.status as s; sys.exit(s.status_of(lambda a: bytearray(1 << 40)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "out of memory" in one_line(done)


def test_whatever_fails_is_one_line_and_a_traceback_on_demand(tmp_path: Path) -> None:
    code = "import sys; from analyzer.status import status_of; sys.exit(status_of(lambda a: [][1]))"
    for options, traceback in (((), False), (("--debug",), True)):
        done = subprocess.run(
            [sys.executable, "-c", code, *options], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 4
        assert ("Traceback" in done.stderr) is traceback
        assert "failed inside: IndexError" in done.stderr


def test_damaged_results_of_a_fleet_are_2(ptaudit, tmp_path: Path) -> None:
    assert ptaudit("fleet", SOUND, "-o", tmp_path / "r").status == 0
    (tmp_path / "r/findings.parquet").write_bytes(b"PAR1" + b"\0" * 100)
    done = ptaudit("fleet", "query", "SELECT 1 FROM findings", "-o", tmp_path / "r")
    assert (done.status, done.out) == (2, "")
    assert done.err.count("\n") == 1


def test_interrupted_is_130(tmp_path: Path) -> None:
    environment = plug_in(tmp_path / "p", "import time; time.sleep(60)")
    process = subprocess.Popen(
        [sys.executable, "-m", "analyzer.cli", "audit", str(SOUND)], cwd=ROOT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.strip()) == (130, "ptaudit: interrupted")


@pytest.mark.parametrize(
    ("name", "begins"),
    [("x.json", "{"), ("x.sarif", "{"), ("x.html", "<!doctype"), ("x.prom", "# HELP"), ("x.md", "**clean**"),
     ("x.xml", "<?xml"), ("x.ktap", "KTAP version 1"), ("x.csv", "verdict,"), ("x.txt", "clean:"), ("x", "clean:")],
)  # fmt: skip
def test_the_suffix_of_the_output_chooses_the_format(ptaudit, tmp_path: Path, name: str, begins: str) -> None:
    assert ptaudit("audit", SOUND, "--output", tmp_path / name).status == 0
    assert (tmp_path / name).read_text().startswith(begins)


def test_a_format_that_is_named_wins(ptaudit, tmp_path: Path) -> None:
    ptaudit("audit", SOUND, "--output", tmp_path / "x.json", "--format", "csv")
    assert (tmp_path / "x.json").read_text().startswith("verdict,")


@pytest.mark.parametrize("option", ["--output", "--write-baseline"])
def test_output_never_overwrites_evidence(ptaudit, tmp_path: Path, option: str) -> None:
    shutil.copytree(SOUND, tmp_path / "capture")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "capture/iomem")
    before = (tmp_path / "capture/iomem").read_bytes()
    for target in (tmp_path / "capture/iomem", link):
        done = ptaudit("audit", tmp_path / "capture", option, target)
        assert done.status == 2
        assert "evidence" in done.err
        assert (tmp_path / "capture/iomem").read_bytes() == before


@pytest.mark.parametrize("form", ["text", "json", "html", "sarif"])
def test_a_report_may_replace_the_one_of_the_day_before(ptaudit, tmp_path: Path, form: str) -> None:
    shutil.copytree(SOUND, tmp_path / "capture")
    for _ in range(2):
        done = ptaudit("audit", tmp_path / "capture", "--format", form, "--output", tmp_path / "capture/report")
        assert done.status == 0, done.err


# --- sources that cannot be read ---

BAD = {
    "vmcore": b"KDUMP   " + bytes(5000),
    "host.tar.gz": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + bytes(range(256)) * 4,
    "notes.txt": b"nothing that ptaudit knows\n",
    "empty": b"",
    "cpuinfo": b"processor\t: 0\nhart\t\t: 0\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\n",
    "missing": None,
}


@pytest.fixture(params=list(BAD))
def bad(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    content = BAD[request.param]
    if content is not None:
        (tmp_path / request.param).write_bytes(content)
    return tmp_path / str(request.param)


@pytest.mark.parametrize(("capture", "status"), [(SOUND, 2), (CAPTURES / "pmem-6.12-vuln/02-one-removed", 1)])
def test_a_source_that_cannot_be_read_is_named_and_never_0(ptaudit, bad: Path, capture: Path, status: int) -> None:
    alone = ptaudit("audit", capture, "--format", "json")
    for sources in ((capture, bad), (bad, capture)):
        done = ptaudit("audit", *sources, "--format", "json")
        assert done.status == status
        assert done.err.startswith(f"ptaudit: not read: {bad}")
        report, without = json.loads(done.out), json.loads(alone.out)
        assert str(bad) in {one["path"] for one in report["unread"]}
        assert report["findings"] == without["findings"]
    assert str(bad) in ptaudit("audit", capture, bad).out


@pytest.mark.parametrize(
    "command",
    [("whatif", "--all"), ("sections",), ("sections", "--format", "csv"), ("timeline",), ("where", "pfn:0x40000")],
)
def test_other_commands_name_it_too(ptaudit, bad: Path, command: tuple[str, ...]) -> None:
    name, *more = command
    options, what = [one for one in more if ":" not in one], [one for one in more if ":" in one]
    whole = ptaudit(name, SOUND, *options, *what)
    done = ptaudit(name, SOUND, bad, *options, *what)
    assert (done.status, done.out) == (whole.status or 2, whole.out)
    assert done.err.startswith(f"ptaudit: not read: {bad}")


def test_sarif_says_that_a_source_could_not_be_read(ptaudit, bad: Path) -> None:
    (run,) = json.loads(ptaudit("audit", SOUND, bad, "--format", "sarif").out)["runs"]
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    assert "error" in {one["level"] for one in invocation["toolExecutionNotifications"]}


def test_output_does_not_replace_a_source_that_could_not_be_read(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(BAD["vmcore"] or b"")
    done = ptaudit("audit", SOUND, tmp_path / "vmcore", "--output", tmp_path / "vmcore")
    assert (done.status, (tmp_path / "vmcore").read_bytes()) == (2, BAD["vmcore"])


# --- fleets ---


def test_a_fleet_with_a_missing_host_is_not_0(ptaudit, tmp_path: Path) -> None:
    shutil.copytree(SOUND, tmp_path / "fleet/host1")
    (tmp_path / "hosts").write_text("host1\nhost2\n# not this one\n")
    done = ptaudit("fleet", tmp_path / "fleet", "-o", tmp_path / "r", "--expected", tmp_path / "hosts")
    assert done.status == 2
    assert done.out.startswith("2 hosts: 1 not audited, 1 clean")
    assert "host2  missing" in done.out


def test_an_empty_directory_is_a_host_from_which_nothing_came(ptaudit, tmp_path: Path) -> None:
    shutil.copytree(SOUND, tmp_path / "fleet/host1")
    (tmp_path / "fleet/host2").mkdir()
    done = ptaudit("fleet", tmp_path / "fleet", "-o", tmp_path / "r")
    assert done.status == 2
    assert "nothing came" in done.out


def test_an_unreadable_bundle_is_not_0_and_findings_go_before_it(ptaudit, tmp_path: Path) -> None:
    shutil.copytree(SOUND, tmp_path / "fleet/host1")
    (tmp_path / "fleet/broken.tar.gz").write_bytes(b"\x1f\x8b\x08nothing")
    assert ptaudit("fleet", tmp_path / "fleet", "-o", tmp_path / "r").status == 2
    shutil.copytree(CAPTURES / "pmem-6.12-vuln/02-one-removed", tmp_path / "fleet/host3")
    assert ptaudit("fleet", tmp_path / "fleet", "-o", tmp_path / "r").status == 1


def test_a_rule_that_fails_in_a_fleet_is_4_and_named(tmp_path: Path) -> None:
    done = run("fleet", SOUND, "-o", tmp_path / "r", "-j", 1, env=plug_in(tmp_path / "p", "1 / 0"))
    assert done.returncode == 4
    assert "rule BAD-01 failed inside on 1 bundle" in done.stderr


# --- terminals ---

EVIL = "\x9b31m\x1b[2J\x07\u202e\u2066\x7f\u200b"


@pytest.mark.parametrize("form", ["text", "json", "sarif", "html", "prometheus", "markdown", "junit", "ktap", "csv"])
def test_no_control_character_of_evidence_reaches_a_terminal(ptaudit, tmp_path: Path, form: str) -> None:
    capture = tmp_path / "capture"
    shutil.copytree(CAPTURES / "pmem-6.12-vuln/02-one-removed", capture)
    iomem = (capture / "iomem").read_text().replace("namespace0.0", f"namespace{EVIL}0.0")
    (capture / "iomem").write_text(iomem)
    done = ptaudit("audit", capture, "--format", form, "--verbose")
    assert "namespace" in done.out or form in {"prometheus", "junit", "ktap"}
    assert not {char for char in done.out + done.err if char in set(EVIL) - set("31m[2J0")}
    if form in {"json", "sarif"}:
        json.loads(done.out)


@pytest.mark.parametrize("command", [("sections",), ("where", "phys:0x80000000"), ("sections", "--format", "json")])
def test_nor_in_other_views(ptaudit, tmp_path: Path, command: tuple[str, ...]) -> None:
    capture = tmp_path / "capture"
    shutil.copytree(CAPTURES / "pmem-6.12-vuln/01-three-namespaces", capture)
    (capture / "iomem").write_text((capture / "iomem").read_text().replace("namespace0.0", f"namespace{EVIL}0.0"))
    name, *rest = command
    done = ptaudit(name, capture, *rest)
    assert not {char for char in done.out + done.err if char in set(EVIL) - set("31m[2J0")}


def test_nor_of_file_names(ptaudit, tmp_path: Path) -> None:
    hosts = tmp_path / f"hosts{EVIL}"
    shutil.copytree(SOUND, hosts / f"host{EVIL}")
    said = []
    for arguments in (
        ("audit", hosts / f"host{EVIL}", "--output", f"{tmp_path}/all{EVIL}/"),
        ("fleet", hosts, "-o", tmp_path / f"r{EVIL}"),
    ):
        done = ptaudit(*arguments)
        assert done.status == 0
        said.append(done.out + done.err)
    said.append((tmp_path / f"r{EVIL}" / "summary.html").read_text())
    assert not {char for text in said for char in text if char in set(EVIL) - set("31m[2J0")}


def test_errors_are_printable(ptaudit, tmp_path: Path) -> None:
    done = ptaudit("audit", tmp_path / f"no{EVIL}thing")
    assert done.status == 2
    assert not {char for char in done.err if char in set(EVIL) - set("31m[2J0")}


def test_json_keeps_what_it_escapes() -> None:
    text = json.dumps({"name": EVIL + "\U000e0041"}, ensure_ascii=False)
    assert json.loads(visible(text, "json")) == {"name": EVIL + "\U000e0041"}
    assert visible(text, "json").isascii()
