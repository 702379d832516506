"""What the command line promises: exit statuses, one clear line for every bad input, help that fits a screen."""

from __future__ import annotations

import gc
import json
import os
import shutil
import stat
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import jsonschema
import pytest

from analyzer.cli import COMMANDS
from analyzer.options import FileName, FilePath
from tests.analyzer.conftest import CAPTURES

SCHEMA = json.loads((Path(__file__).parents[2] / "analyzer/reports/report.schema.json").read_text())
MOMENTS = sorted(path.parent for path in CAPTURES.glob("*/*/kernel_page_tables"))


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_shows_an_example(ptaudit, command: str) -> None:
    done = ptaudit(*command.split(), "--help")
    lines = done.out.splitlines()
    assert done.status == 0
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert f"ptaudit {command or 'audit'}" in done.out.split("Example:")[1]


def test_nothing_found_is_0(ptaudit, sound: Path) -> None:
    assert ptaudit("audit", sound).status == 0


def test_findings_are_1_from_fail_on_up(ptaudit, damaged: Path) -> None:
    assert ptaudit("audit", damaged).status == 1
    assert ptaudit("audit", damaged, "--select", "ENV-01").status == 0
    assert ptaudit("audit", damaged, "--select", "ENV-01", "--fail-on", "info").status == 1
    assert ptaudit("audit", damaged, "--select", "lost-struct-pages").status == 1
    assert ptaudit("audit", damaged, "--select", "env", "--ignore", "known-bugs").status == 0


@pytest.mark.parametrize("option", ["--select", "--ignore"])
def test_unknown_rule_is_a_usage_error(ptaudit, damaged, option):
    done = ptaudit("audit", damaged, option, "ENV-01,ENV-1")
    assert done.status == 2
    assert "no rule, family or name 'ENV-1'; did you mean " in done.err
    assert "ENV-01?" in done.err


def test_undecided_rules_are_3_with_strict_only(ptaudit, sound: Path) -> None:
    alone = sound / "kernel_page_tables"
    assert ptaudit("audit", alone).status == 0
    assert ptaudit("audit", alone, "--strict").status == 3
    assert ptaudit("audit", alone, "--strict", "--select", "ATT-01").status == 0


def test_findings_come_before_undecided_rules(ptaudit, damaged: Path) -> None:
    assert ptaudit("audit", damaged / "kernel_page_tables", "--strict").status == 1


def refused(done, *words: str) -> None:
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("ptaudit: ")
    assert len(done.err.splitlines()) == 1
    for word in words:
        assert word in done.err


def test_missing_file(ptaudit, tmp_path: Path) -> None:
    refused(ptaudit("audit", tmp_path / "none"), "none", "No such file")


def test_no_source(ptaudit) -> None:
    refused(ptaudit("audit"), "name a directory or a file")


def test_empty_file(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    refused(ptaudit("audit", tmp_path / "empty"), "the file is empty")


def test_empty_directory(ptaudit, tmp_path: Path) -> None:
    refused(ptaudit("audit", tmp_path), "no file that ptaudit knows")


def test_binary_file(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 64)
    refused(ptaudit("audit", tmp_path / "noise"), "not recognised", "--kind")


def test_binary_file_under_the_name_of_a_dump(ptaudit, tmp_path: Path) -> None:
    (tmp_path / "kernel_page_tables").write_bytes(bytes(range(256)) * 64)
    refused(ptaudit("audit", tmp_path), "kernel_page_tables")


def test_truncated_dump_is_read_as_far_as_it_goes(ptaudit, damaged: Path, tmp_path: Path) -> None:
    text = (damaged / "kernel_page_tables").read_bytes()
    (tmp_path / "kernel_page_tables").write_bytes(text[: len(text) // 2 + 17])
    done = ptaudit("audit", tmp_path)
    assert done.status in {0, 1}
    assert "note: " in done.out


def test_directory_with_several_captures(ptaudit) -> None:
    done = ptaudit("audit", CAPTURES / "pmem-6.12-vuln")
    refused(done, "several captures", "01-three-namespaces", "02-one-removed")


def test_fifo(ptaudit, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(ptaudit("audit", tmp_path / "pipe"), "not a regular file")


def test_fifo_inside_a_capture_is_left_alone(ptaudit, sound: Path, tmp_path: Path) -> None:
    capture = shutil.copytree(sound, tmp_path / "capture")
    os.mkfifo(capture / "trace_pipe")
    assert ptaudit("audit", capture).status == 0


def test_link_out_of_the_capture_is_not_followed(ptaudit, sound: Path, tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    capture.mkdir()
    shutil.copy(sound / "uname", capture)
    (capture / "iomem").symlink_to(sound / "iomem")
    done = ptaudit("audit", capture, "--format", "json")
    assert [source["kind"] for source in json.loads(done.out)["sources"]] == ["uname"]


def test_unknown_kind_and_layout_key(ptaudit, sound: Path) -> None:
    refused(ptaudit("audit", "--kind", f"nonsense={sound / 'iomem'}"), "no such kind")
    refused(ptaudit("audit", sound, "--layout", "phys_ofset=0"), "no such key")
    refused(ptaudit("audit", sound, "--layout", "phys_offset=zero"), "is not a number")


def test_options_that_click_refuses_are_2(ptaudit, sound: Path) -> None:
    assert ptaudit("audit", sound, "--fail-on", "terrible").status == 2
    assert ptaudit("audit", sound, "--format", "yaml").status == 2
    assert ptaudit("nonsense").status == 2


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_json_report_follows_its_schema(ptaudit, moment: Path) -> None:
    document = json.loads(ptaudit("audit", moment, "--format", "json").out)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_json_of_an_almost_empty_capture_follows_its_schema(ptaudit, sound: Path) -> None:
    document = json.loads(ptaudit("audit", sound / "uname", "--format", "json").out)
    jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)
    assert document["kernel"]["phys_offset"] is None


def test_the_schema_is_one_and_forbids_what_it_does_not_name(ptaudit, sound: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    document = json.loads(ptaudit("audit", sound, "--format", "json").out)
    document["findings"][0]["unheard"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA, cls=jsonschema.Draft202012Validator)


def test_same_input_gives_the_same_bytes(ptaudit, damaged: Path) -> None:
    once, again = (ptaudit("audit", damaged, "--format", "json").out for _ in range(2))
    assert once == again


def test_order_of_sources_does_not_matter(ptaudit, damaged: Path) -> None:
    files = [damaged / name for name in ("kernel_page_tables", "iomem", "memory_blocks", "dmesg")]
    one, other = (json.loads(ptaudit("audit", *paths, "--format", "json").out) for paths in (files, files[::-1]))
    assert one["findings"] == other["findings"]


def test_closed_pipe_prints_no_traceback(damaged: Path) -> None:
    code = "from analyzer.cli import main; main()"
    command = [sys.executable, "-c", code, "audit", str(damaged), "--format", "sarif"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=CAPTURES.parents[1]) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()


def test_control_characters_of_a_dump_do_not_reach_the_terminal(ptaudit, damaged: Path, tmp_path: Path) -> None:
    capture = shutil.copytree(damaged, tmp_path / "capture")
    for path in capture.iterdir():
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    (capture / "uname").write_text("Linux h\x1b]0;owned\x07 6.12.117 #1 SMP aarch64\n")
    assert "\x1b" not in ptaudit("audit", capture).out


def test_a_caller_of_main_can_still_collect_its_garbage(ptaudit, damaged: Path) -> None:
    frozen = gc.get_freeze_count()
    ptaudit("audit", damaged)
    assert gc.get_freeze_count() == frozen


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", ""),
        ("audit", "{sound}", "--output", ""),
        ("audit", "{sound}", "--write-baseline", ""),
        ("sections", "{sound}", "--output", ""),
        ("diff", "{sound}", ""),
        ("fleet", ""),
        ("fleet", "{sound}", "--output", ""),
        ("fleet", "query", "SELECT 1", "--output", ""),
        ("collect", "--output", ""),
        ("distill", ""),
    ],
)
def test_a_variable_of_a_script_that_is_not_set_is_not_the_current_directory(
    ptaudit, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "dmesg").write_bytes(b"[    1.000000] Offlined Pages 32768\n")
    monkeypatch.chdir(tmp_path)
    done = ptaudit(*(one.format(sound=sound.resolve()) for one in arguments))
    assert (done.status, "the name is empty" in done.err) == (2, True)
    assert [one.name for one in tmp_path.iterdir()] == ["dmesg"]


def test_every_path_of_every_command_has_a_name() -> None:
    commands = [import_module(f"analyzer.{entry.module}").command for entry in COMMANDS.values()]
    commands += [inner for one in commands if isinstance(one, click.Group) for inner in one.commands.values()]
    paths = [param.type for one in commands for param in one.params if isinstance(param.type, click.Path)]
    assert len(paths) > 20
    assert {type(one) for one in paths} <= {FilePath, FileName}


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colours_are_for_terminals_that_want_them(
    ptaudit, damaged: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], colour: bool
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert ("\x1b[" in ptaudit("audit", damaged).out) is colour
