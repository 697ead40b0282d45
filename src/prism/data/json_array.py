"""The items of a JSON array one by one, whatever its size."""

import codecs
import json
from collections.abc import Iterator
from typing import IO

CHUNK_BYTES = 2**20
_WHITESPACE = " \t\n\r"


def array_items(stream: IO[bytes], longest: int) -> Iterator[object]:
    """Raises ValueError for what is no JSON array in UTF-8 and for an item of more than `longest` characters.

    An item costs time linear in its length; memory holds one item and what was read along with it.
    """
    text = _Text(stream, longest)
    if text.skip() != "[":
        raise ValueError("does not begin with [")
    separator = text.peek()
    if separator == "]":
        text.skip()
    while separator != "]":
        yield text.value()
        separator = text.skip()
        if separator not in (",", "]"):
            raise ValueError(f"has {separator!r} where a comma or the array's end belongs")
    if text.peek():
        raise ValueError("goes on after the array's end")


class _Text:
    """The part of the file that is in memory; `peek` and `skip` look at the next character that is no space."""

    def __init__(self, stream: IO[bytes], longest: int) -> None:
        self._stream, self._longest = stream, longest
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._place, self._has_ended = "", 0, False

    def peek(self) -> str:
        """The empty string at the end of the file."""
        while True:
            while self._place < len(self._text):
                if self._text[self._place] not in _WHITESPACE:
                    return self._text[self._place]
                self._place += 1
            if self._has_ended:
                return ""
            self._fill()

    def skip(self) -> str:
        character = self.peek()
        self._place += 1
        return character

    def value(self) -> object:
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except RecursionError:
                raise ValueError("has an item that is nested too deeply") from None
            except ValueError:
                if self._has_ended:
                    raise
            else:
                # A number that ends with what was read may go on.
                if end < len(self._text) or self._has_ended:
                    self._place = end
                    return value
            if len(self._text) - self._place > self._longest:
                raise ValueError(f"has an item of more than {self._longest:,} characters, or one that is no JSON")
            self._fill()

    def _fill(self) -> None:
        """Reads as much again as is still needed, so that a long item is not begun again too often."""
        self._text = self._text[self._place :]
        self._place = 0
        data = self._stream.read(max(CHUNK_BYTES, len(self._text)))
        self._has_ended = not data
        self._text += self._decoder.decode(data, final=self._has_ended)
