"""Which steps a store has been through, in which order, under which settings.

Each registration is a small file that never changes, and whose number says its place; so processes on several
machines can register at once. A step keeps the place it first got; given again with other settings, its outcomes
are new ones, and so are those of the steps behind it, since their rows are then others.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from prism.errors import StorageError
from prism.runtime.atomic import write_new
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
        """The newest settings of every step, in the order of the steps, each behind the newest run of those before.

        A step whose predecessors were run again in another way is thus another run, which has no outcomes yet.
        """
        newest: dict[str, StepRun] = {}
        for run in self._registrations():
            if run.role == "step":
                newest[run.name] = run
        runs: list[StepRun] = []
        for run in newest.values():
            runs.append(replace(run, before=tuple((each.name, each.id) for each in runs)))
        return runs

    def behind(self, run: StepRun) -> list[StepRun]:
        """All runs there ever were of steps behind this very run."""
        return [other for other in self._registrations() if (run.name, run.id) in other.before]

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
        text = json.dumps(asdict(run), indent=1) + "\n"
        number = len(self._registrations()) + 1
        while not write_new(self._directory / f"{number:04d}.json", text.encode()):
            number += 1


def _read(path: Path) -> StepRun:
    try:
        table = json.loads(path.read_text())
        before = tuple((str(name), str(run)) for name, run in table["before"])
        return StepRun(table["name"], table["role"], table["settings"], before)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: is no registration of a step: {error}; restore it from a copy") from error
