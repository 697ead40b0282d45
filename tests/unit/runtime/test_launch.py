"""Which process this is, by what torchrun leaves in the environment."""

import pytest

from prism.runtime import launch


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [
        ({}, True),
        ({"WORLD_SIZE": "2", "RANK": "0"}, True),
        ({"WORLD_SIZE": "2", "RANK": "1"}, False),
        ({"RANK": "1"}, True),
    ],
)
def test_the_first_process_is_known_before_it_has_met_the_others(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], is_first: bool
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launch.is_first() is is_first
