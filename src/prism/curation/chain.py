"""Which steps a store has been through, in which order, under which settings.

Each registration is a small file that never changes, and whose number says its place; so processes on several
machines can register at once. A step keeps the place it first got; given again with other settings, its outcomes
are new ones, and so are those of the steps behind it, since their rows are then others.
"""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from prism.errors import StorageError
from prism.runtime.atomic import storage_errors
from prism.runtime.hashing import config_sha256

Role = Literal["step", "feature"]
"""A `feature` run is the first half of a step that has to see all rows; its outcomes let every row go on."""


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step under certain settings, behind certain runs of the steps before it; `id` follows from all of these."""

    name: str
    role: Role
    settings: Mapping[str, Any]
    before: tuple[tuple[str, str], ...]
    """The steps before and the ids of their runs."""

    @property
    def id(self) -> str:
        return config_sha256([self.name, self.role, dict(self.settings), [list(pair) for pair in self.before]])[:16]


class Chain:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def current(self) -> list[StepRun]:
        """The newest run of every step, in the order of the steps."""
        newest: dict[str, StepRun] = {}
        for run in self._registrations():
            if run.role == "step":
                newest[run.name] = run
        return list(newest.values())

    def before(self, name: str | None) -> tuple[tuple[str, str], ...]:
        """The steps that come before `name`, with the ids of their newest runs; all there are for a name not yet
        registered and for None."""
        pairs: list[tuple[str, str]] = []
        for run in self.current():
            if run.name == name:
                break
            pairs.append((run.name, run.id))
        return tuple(pairs)

    def register(self, name: str, settings: Mapping[str, Any], role: Role = "step") -> StepRun:
        run = StepRun(name, role, json.loads(json.dumps(dict(settings))), self.before(name))
        registered = [known for known in self._registrations() if (known.name, known.role) == (name, role)]
        if not registered or registered[-1].id != run.id:
            self._append(run)
        return run

    def _registrations(self) -> list[StepRun]:
        return [_read(path) for path in sorted(self._directory.glob("[0-9]*.json"))]

    def _append(self, run: StepRun) -> None:
        temporary = self._directory / f".{secrets.token_hex(6)}.partial"
        with storage_errors(self._directory):
            try:
                temporary.write_text(json.dumps(asdict(run), indent=1) + "\n")
                number = len(self._registrations()) + 1
                while not _claim(temporary, self._directory / f"{number:04d}.json"):
                    number += 1
            finally:
                temporary.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> bool:
    """Whether `path` was free and now is this registration: of two processes one only gets a number."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> StepRun:
    try:
        table = json.loads(path.read_text())
        before = tuple((str(name), str(run)) for name, run in table["before"])
        return StepRun(table["name"], table["role"], table["settings"], before)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: is no registration of a step: {error}; restore it from a copy") from error
