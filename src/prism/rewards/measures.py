"""Counts that show whether responses look like the teacher's: reasoning steps and described items."""

import re

# The blanks before a number stay within its line: across lines the search would be quadratic in blank lines.
_NUMBERED_LINE = re.compile(r"^[^\S\n]*\d+[.)]\s", re.MULTILINE)
_ITEM_BREAK = re.compile(r"[;\n]|\.(?!\d)|,(?!\d{3}\b)")


def num_reasoning_steps(think: str) -> int:
    """Numbered lines, or all non-empty lines of a reasoning that numbers none."""
    return len(_NUMBERED_LINE.findall(think)) or sum(bool(line.strip()) for line in think.splitlines())


def num_description_items(caption: str) -> int:
    """Stretches of text between commas, semicolons, periods and line breaks, but for those inside a number."""
    return sum(bool(part.strip()) for part in _ITEM_BREAK.split(caption))
