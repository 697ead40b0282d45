"""Counts that show whether responses look like the teacher's: reasoning steps and described items."""

import re

_NUMBERED_LINE = re.compile(r"^\s*\d+[.)]\s", re.MULTILINE)
_ITEM_BREAK = re.compile(r"[,.;\n]")


def num_reasoning_steps(think: str) -> int:
    """Numbered lines, or all non-empty lines of a reasoning that numbers none."""
    return len(_NUMBERED_LINE.findall(think)) or sum(bool(line.strip()) for line in think.splitlines())


def num_description_items(caption: str) -> int:
    """Stretches of text between commas, semicolons, periods and line breaks."""
    return sum(bool(part.strip()) for part in _ITEM_BREAK.split(caption))
