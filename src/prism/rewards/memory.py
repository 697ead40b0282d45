"""A cache for functions of one text, whose size in memory has a bound whatever the texts are."""

from collections.abc import Callable
from functools import lru_cache
from typing import Generic, TypeVar

_MAX_TEXTS = 4096
_MAX_CHARS = 200
"""Longer texts are worked out anew each time: a policy that fills pages would otherwise fill the memory."""

Result = TypeVar("Result")


class Remembered(Generic[Result]):
    def __init__(self, function: Callable[[str], Result]) -> None:
        self.__doc__ = function.__doc__
        self._function = function
        self._cached = lru_cache(maxsize=_MAX_TEXTS)(function)
        self.cache_clear = self._cached.cache_clear

    def __call__(self, text: str) -> Result:
        return self._cached(text) if len(text) <= _MAX_CHARS else self._function(text)
