"""What a container's quota leaves of a machine's processors."""

import os
from pathlib import Path

import pytest

from prism.runtime.processors import num_processors


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))


@pytest.mark.parametrize(
    ("text", "count"), [("max 100000", 8), ("250000 100000", 3), ("10000 100000", 1), ("6400000 100000", 8), ("?", 8)]
)
def test_the_quota_of_cgroups_2(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert num_processors(tmp_path) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 8), ("200000", 2)])
def test_the_quota_of_cgroups_1(tmp_path: Path, quota: str, count: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert num_processors(tmp_path) == count


def test_without_cgroups_the_processors_that_a_process_may_use(tmp_path: Path) -> None:
    assert num_processors(tmp_path) == 8
