"""Which rows hang together because they share something: connected components."""

from collections.abc import Iterable


class Components:
    """Rows are numbered in the order in which they are added; two that share a key are in one component, and so are
    all who are connected by others."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self._owners: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, keys: Iterable[str]) -> int:
        """The row's number; keys are hexadecimal digests, of which 64 bits are kept."""
        number = len(self._parents)
        self._parents.append(number)
        for key in keys:
            self._join(number, self._owners.setdefault(int(key[:16], 16), number))
        return number

    def root(self, number: int) -> int:
        """The smallest number of the row's component."""
        path = number
        while self._parents[path] != path:
            self._parents[path] = self._parents[self._parents[path]]
            path = self._parents[path]
        return path

    def _join(self, left: int, right: int) -> None:
        low, high = sorted((self.root(left), self.root(right)))
        self._parents[high] = low
