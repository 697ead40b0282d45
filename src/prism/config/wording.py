"""The words of error messages: did-you-mean hints, and text that stays on one line."""

import difflib
from collections.abc import Iterable


def suggest(given: object, allowed: Iterable[str], *, or_list: bool = True) -> str:
    """The tail of an error message: `; did you mean x?`, or else what there is (unless not `or_list`), or nothing."""
    choices = list(allowed)
    given = str(given)
    # A known word inside a longer one (learning_rate, policy_learning_rate) counts as close.
    close = difflib.get_close_matches(given, choices, n=1, cutoff=0.6) or [
        choice for choice in choices if len(given) > 3 and (given in choice or choice in given)
    ]
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are: {', '.join(choices)}" if choices and or_list else ""


def printable(text: str) -> str:
    """`text` with line ends, control characters and the like as escapes, so that it fits one line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
