"""What operators install, tried with the programs that read it, where those are installed.

sudo apt-get install prometheus prometheus-node-exporter systemd
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from analyzer.audit_command import FORMATS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "ptaudit.rules.yml"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*command: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)


@pytest.fixture
def textfile(ptaudit, damaged: Path, tmp_path: Path) -> Path:
    """The metrics of a damaged host in a folder of their own."""
    folder = tmp_path / "textfiles"
    folder.mkdir()
    assert ptaudit("audit", damaged, "--format", "prometheus", "--output", folder / "ptaudit.prom").status == 1
    return folder / "ptaudit.prom"


@needs("promtool")
def test_the_alerts_are_right() -> None:
    assert run("promtool", "check", "rules", RULES).returncode == 0
    done = run("promtool", "test", "rules", DEPLOY / "prometheus" / "ptaudit.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs("promtool")
def test_the_metrics_are_as_prometheus_wants_them(textfile: Path) -> None:
    done = run("promtool", "check", "metrics", input=textfile.read_text())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_alerts_ask_for_metrics_that_there_are(textfile: Path) -> None:
    families = set(re.findall(r"^# TYPE (\w+)", textfile.read_text(), re.MULTILINE))
    asked = set(re.findall(r"\bptaudit_\w+", " ".join(rule["expr"] for rule in alerts())))
    assert asked
    assert asked <= families


def test_every_alert_is_tested() -> None:
    tested = (DEPLOY / "prometheus" / "ptaudit.test.yml").read_text()
    for rule in alerts():
        assert f"alertname: {rule['alert']}\n" in tested


def alerts() -> list[dict[str, str]]:
    return yaml.safe_load(RULES.read_text())["groups"][0]["rules"]


@needs("prometheus-node-exporter")
def test_node_exporter_serves_the_textfile(textfile: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    exporter = subprocess.Popen(
        ["prometheus-node-exporter", "--collector.disable-defaults", "--collector.textfile",
         f"--collector.textfile.directory={textfile.parent}", f"--web.listen-address={address}"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        page = fetched(f"http://{address}/metrics")
    finally:
        exporter.kill()
        exporter.wait()
    assert 'ptaudit_findings{severity="critical"} 2\n' in page
    assert "node_textfile_scrape_error 0\n" in page
    assert re.search(
        r'^ptaudit_rule_outcome\{outcome="fired",rule="VMM-02",severity="critical"\} 1$', page, re.MULTILINE
    )


def fetched(address: str) -> str:
    for _ in range(100):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    pytest.fail(f"{address} does not answer")


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with the ptaudit of this environment in them: systemd wants the program to be there."""
    program = tmp_path / "ptaudit"
    program.write_text(f"#!{sys.executable}\n")
    program.chmod(0o755)
    made = []
    for unit in sorted((DEPLOY / "systemd").iterdir()):
        made.append(tmp_path / unit.name)
        made[-1].write_text(unit.read_text().replace("/usr/local/bin/ptaudit", str(program)))
    return made


@needs("systemd-analyze")
def test_systemd_takes_the_units(units: list[Path]) -> None:
    done = run("systemd-analyze", "verify", "--man=no", *units)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def named(units: list[Path], name: str) -> Path:
    return next(unit for unit in units if unit.name == name)


@needs("systemd-analyze")
@pytest.mark.parametrize(("name", "exposure"), [("ptaudit.service", 30), ("ptaudit-trace.service", 50)])
def test_the_service_is_hardened(units: list[Path], name: str, exposure: int) -> None:
    done = run("systemd-analyze", "security", "--offline=yes", f"--threshold={exposure}", named(units, name))
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_service_runs_a_command_that_there_is(ptaudit, units: list[Path]) -> None:
    service = named(units, "ptaudit.service").read_text()
    audit, _, collect = (line.split() for line in re.findall(r"^ExecStart=(.*)$", service, re.MULTILINE))
    assert audit[1:3] == ["audit", "--live"]
    assert audit[audit.index("--format") + 1] in FORMATS
    for words in (audit, collect):
        known = ptaudit(words[1], "--help").out
        assert all(word in known for word in words if word.startswith("-") and words.index(word) > 1)


def test_the_trace_of_the_boot_is_armed_saved_and_kept_once_more(units: list[Path], tmp_path: Path) -> None:
    """The unit's commands with a probe script that notes how it was called."""
    state, calls = tmp_path / "state", tmp_path / "calls"
    state.mkdir()
    program = tmp_path / "ptaudit"
    program.write_text(f'#!/bin/sh\necho "$@" >>{calls}\necho \'mkdir -p $2; echo "$@" >>{calls}; echo $1 >>$2/log\'\n')
    program.chmod(0o755)
    text = named(units, "ptaudit-trace.service").read_text()
    environment = dict(re.findall(r"^Environment=(\w+)=(.*)$", text, re.MULTILINE)) | {"STATE_DIRECTORY": str(state)}
    commands = {
        key: re.findall(rf"^{key}=(.*)$", text, re.MULTILINE) for key in ("ExecStartPre", "ExecStart", "ExecStop")
    }

    def execute(key: str) -> None:
        for command in commands[key]:
            run("sh", "-c", command, env=os.environ | environment).check_returncode()

    for _ in range(3):
        for key in commands:
            execute(key)
    assert (
        calls.read_text().splitlines()
        == [
            "probes --buffer-kb 512",
            f"start {state}/trace 315360000",
            f"stop {state}/trace",
        ]
        * 3
    )
    assert sorted(path.name for path in state.iterdir()) == ["probes.sh", "trace", "trace.1"]
    assert (state / "trace.1" / "log").read_text() == (state / "trace" / "log").read_text() == "start\nstop\n"


def documented_commands(page: str, marker: str) -> str:
    """The shell block of a page that contains a marker."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.DOTALL | re.MULTILINE)
    (found,) = [block for block in blocks if marker in block]
    return found


@pytest.mark.slow
def test_collecting_from_many_hosts_over_ssh(tmp_path: Path) -> None:
    """The documented line, with an ssh that runs the command here and refuses one host."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin/ssh"
    ssh.write_text(
        '#!/bin/sh\nwhile [ "$1" = -o ]; do shift 2; done\n[ "$1" != root@away ] || exit 255\nshift\nexec sh -c "$*"\n'
    )
    ssh.chmod(0o755)
    (tmp_path / "bin/ptaudit").write_text(f'#!/bin/sh\nexec {sys.executable} -m analyzer.cli "$@"\n')
    (tmp_path / "bin/ptaudit").chmod(0o755)
    (tmp_path / "hosts.txt").write_text("one\naway\ntwo\n")
    environment = os.environ | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    line = documented_commands("operate/many-hosts.md", "xargs")
    subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment, check=False, timeout=300)
    for host in ("one", "two"):
        assert (tmp_path / "bundles" / host / "manifest").stat().st_size > 0
    assert not (tmp_path / "bundles/away/manifest").exists()
