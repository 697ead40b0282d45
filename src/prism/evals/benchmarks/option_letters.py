"""Which option letter a text names by the rules of the paper's evaluation, their defects included.

The profile `prism` exists to give the paper's verdicts, so nothing is mended here: a leading article is
option A, a negation is not seen, and of two letters one wins.
"""

import re
from collections.abc import Sequence

from prism.evals.benchmarks.rows import LETTERS

_TRIMMED = ",.!?;:'"
_MMMU_FORMS = (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} "))
"""How a letter may be written, and the form whose last place decides between several letters."""
_MAX_BARE_WORDS = 5

_WEMATH_LETTERS = "ABCDEFGH"
_WEMATH_FORMS = (("({})",), ("{}.",), ("{}:",), ("{})",), ("{} ",), ("{}-", "{}_", "{}="), ("{}",))
_ANNOUNCEMENT = re.compile(
    r"(?:the )?(?:(?:correct |best )?answer|(?:correct )?(?:option|choice) is)"
    r"|my (?:answer|choice) is|i (?:choose|select|pick)"
)


def mmmu_letter(text: str, options: Sequence[str]) -> str | None:
    """MMMU's rule. None where it finds nothing and draws a random option.

    A letter is sought in brackets, then before a space, then before a period; in a text of more than five
    words also the options' own texts. Of several the one that stands last wins.
    """
    text = f" {_trimmed(text, _TRIMMED)} "
    letters = LETTERS[: len(options)]
    for written, placed in _MMMU_FORMS:
        found = {letter: text.rfind(placed.format(letter)) for letter in letters if written.format(letter) in text}
        if found:
            return max(found, key=lambda letter: found[letter])
    if len(text.split()) <= _MAX_BARE_WORDS:
        return None
    text = text.lower()
    found = {letter: text.rfind(option.lower()) for letter, option in zip(letters, options, strict=False)}
    last = max(found, key=lambda letter: found[letter], default="")
    return last if found.get(last, -1) >= 0 else None


def wemath_letter(text: str) -> str:
    """We-Math's rule; empty where the text holds no capital from A to H at all.

    A capital that begins or ends the text wins, even as part of a word; then one after "1." (only A), "2."
    (only B) and so on; then the first one after the first phrase that announces an answer; then the one in
    the foremost of the forms "(A)", "A.", "A:", … that occurs.
    """
    text = f" {_trimmed(text.strip(), _TRIMMED + chr(34))} "
    bare = text.strip()
    if bare[:1] and bare[0] in _WEMATH_LETTERS:
        return bare[0]
    if bare and bare[-1] in _WEMATH_LETTERS:
        return bare[-1]
    numbered = {letter: text.rfind(f"{place}. {letter}") for place, letter in enumerate(_WEMATH_LETTERS, start=1)}
    found = {letter: place for letter, place in numbered.items() if place >= 0}
    if found:
        return min(found, key=lambda letter: found[letter])
    announcement = _ANNOUNCEMENT.search(text.lower())
    announced = re.search("[A-H]", text[announcement.start() :]) if announcement else None
    if announced:
        return announced[0]
    for forms in _WEMATH_FORMS:
        places = [(text.rfind(form.format(letter)), letter) for form in forms for letter in _WEMATH_LETTERS]
        present = [place for place in places if place[0] >= 0]
        if present:
            return min(present)[1]
    return ""


def _trimmed(text: str, characters: str) -> str:
    """Each character taken off both ends in turn, which is less than all of them together."""
    for character in characters:
        text = text.strip(character)
    return text
