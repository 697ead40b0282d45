"""One budget for all processes at work on a step, each on shards of its own.

What a shard has cost is in its ledger, which can be read unless a process has it open. Such a process has written down
beforehand, in `budget.sqlite`, how much its shards will have cost at most. So the sum is known at any time to whoever
wants a part of the budget, and it never passes it.
"""

import sqlite3
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from prism.curation.budget import Spent
from prism.curation.ledger import FILE as LEDGER
from prism.curation.ledger import open_ledger, spent_by
from prism.curation.shard import database_errors

FILE = "budget.sqlite"
_BUSY_TIMEOUT_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (
    step TEXT NOT NULL, shard INTEGER NOT NULL, claim TEXT NOT NULL, cost REAL NOT NULL, tokens REAL NOT NULL,
    PRIMARY KEY (step, shard)
);
"""
"""The rows of one `claim` have the most that all its shards together may have cost."""


class SharedFund:
    """See `budget.Fund`. `directories` are those of all shards; without limits it only writes down what was spent."""

    def __init__(
        self,
        directory: Path,
        directories: Mapping[int, Path],
        step: str,
        max_cost: float | None = None,
        max_tokens: int | None = None,
    ) -> None:
        self._path, self._directories, self._step = directory / FILE, directories, step
        self._max_cost, self._max_tokens = max_cost, max_tokens

    def claim(self, spent: Mapping[int, Spent]) -> tuple[float | None, float | None]:
        """The share of the budget that the shards are of all shards, or of what is left of it if that is more, but no
        more than is left by what other shards have cost or others have claimed for them.

        `spent` are the shards of this process, whose ledgers are open. Raises StorageError.
        """
        own = _sum([*spent.values()])
        share = len(spent) / len(self._directories)
        with self._writing() as database:
            elsewhere = self._elsewhere(database, spent)
            max_cost = _part_of(self._max_cost, own.cost, elsewhere.cost, share)
            max_tokens = _part_of(self._max_tokens, own.tokens, elsewhere.tokens, share)
            claimed = Spent(
                own.cost if max_cost is None else max_cost, own.tokens if max_tokens is None else max_tokens
            )
            self._write(database, dict.fromkeys(spent, (uuid.uuid4().hex, claimed)))
        return max_cost, max_tokens

    def settle(self, spent: Mapping[int, Spent]) -> None:
        """Raises StorageError."""
        with self._writing() as database:
            self._write(database, {number: (f"shard {number}", each) for number, each in spent.items()})

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One process at a time; nothing is written if the block raises."""
        with database_errors(self._path), closing(self._open()) as database:
            database.executescript(_SCHEMA)
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)

    def _write(self, database: sqlite3.Connection, claims: Mapping[int, tuple[str, Spent]]) -> None:
        rows = [(self._step, number, name, *most) for number, (name, most) in claims.items()]
        database.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, ?)", rows)

    def _elsewhere(self, database: sqlite3.Connection, own: Mapping[int, Spent]) -> Spent:
        """What the shards but for `own` have cost, and those in use may cost. A claim counts as a whole as long as any
        of its shards is in use."""
        query = "SELECT shard, claim, cost, tokens FROM claims WHERE step = ?"
        claims = {shard: (name, Spent(*most)) for shard, name, *most in database.execute(query, (self._step,))}
        known = {number: self._known(number) for number in self._directories if number not in own}
        in_use = dict(claims[number] for number, spent in known.items() if spent is None and number in claims)
        counted = [number for number in claims if claims[number][0] in in_use]
        others = [spent for number, spent in known.items() if spent is not None and number not in counted]
        return _sum([*in_use.values(), *others])

    def _known(self, number: int) -> Spent | None:
        """What the shard has cost; None while another process has its ledger open."""
        directory = self._directories[number]
        if not (directory / LEDGER).exists():
            return Spent(0.0, 0)
        try:
            with closing(open_ledger(directory, timeout_s=0.0)) as ledger:
                return spent_by(ledger, self._step)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:  # the other bits say what it waits for
                raise
            return None


def _sum(spent: Collection[Spent]) -> Spent:
    return Spent(sum(each.cost for each in spent), sum(each.tokens for each in spent))


def _part_of(limit: float | None, own: float, elsewhere: float, share: float) -> float | None:
    if limit is None:
        return None
    left = max(0.0, limit - own - elsewhere)
    return own + min(left, max(share * limit - own, share * left))
