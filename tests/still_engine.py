"""A base for engines in tests, which write what they like, whatever the weights."""

from typing import Any


class StillEngine:
    def update_weights(self, weights: Any) -> None:
        pass

    def sleep(self) -> None:
        pass

    def close(self) -> None:
        pass
