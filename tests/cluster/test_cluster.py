"""The fleet on a real scheduler with two workers, one of which is killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyzer.fleet.local import Limits
from analyzer.fleet.run import run_fleet
from parsers.errors import InputError
from tests.analyzer.fleets import bundle

pytest.importorskip("distributed")


@pytest.mark.slow
def test_a_killed_worker_changes_nothing(tmp_path: Path) -> None:
    from tests.cluster.cluster import compare

    assert compare(tmp_path, 40)


def test_no_scheduler_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analyzer.fleet.cluster.CONNECT_SECONDS", 1)
    bundle(tmp_path / "one")
    with pytest.raises(InputError, match="no scheduler answers at tcp"):
        run_fleet(
            [str(tmp_path / "one")],
            tmp_path / "r",
            jobs=1,
            limits=Limits(),
            scheduler="tcp://127.0.0.1:1",
        )
