"""Words that are written in more than one way: plurals, accents, hyphens, ordinals, British and American."""

import re
import unicodedata

_FUNCTION = "sin|cos|tan|cot|sec|csc|log|exp|sqrt"
_ARTICLE = re.compile(rf"^(?:the\s+|an?\s+(?=[a-z]{{3}})(?!{_FUNCTION}))", re.IGNORECASE)
_WORD_HYPHEN = re.compile(rf"(?<=[A-Za-z])-(?=(?!{_FUNCTION})[A-Za-z][a-z]{{2}})")
_VARIANTS = {"grey": "gray", "colour": "color", "centre": "center", "metre": "meter", "litre": "liter"}
_VARIANT = re.compile(rf"\b({'|'.join(_VARIANTS)})")
_PLURAL = re.compile(r"(?:(?<=[a-z]{2})(ies)|(?<=x|z)es|(?<=ch|sh|ss)es|(?<=[a-z]{2}[^sui\W])s)$")
_ORDINAL_WORDS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
    "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
)
_ORDINALS = {word: place for place, word in enumerate(_ORDINAL_WORDS.split(), start=1)}
_ORDINAL = re.compile(rf"\b(twenty[- ])?({'|'.join(_ORDINALS)})\b|(?<=[0-9])(?:st|nd|rd|th)\b", re.IGNORECASE)
_LONG_WORD = re.compile(r"(?<![A-Za-z\\])[A-Za-z]{4,}")
# A space between digits keeps two numbers apart.
_FREE_SPACE = re.compile(r"(?<![0-9]) | (?![0-9])")
_SUBSCRIPT_MARK = re.compile(r"(?<=[A-Za-z])_")
_BRACED_CHARACTER = re.compile(r"\{([A-Za-z0-9])\}")


def formula_spelling(text: str) -> str:
    """Without free spaces; only long words lose their case, which tells mW from MW and X from x."""
    text = _LONG_WORD.sub(lambda match: match.group().lower(), _ordinals_in_digits(text))
    text = text.removeprefix("the ")
    if " " in text:
        text = _FREE_SPACE.sub("", text)
    if "{" in text:
        text = _BRACED_CHARACTER.sub(r"\1", text)
    return _SUBSCRIPT_MARK.sub("", text) if "_" in text else text


def word_spelling(text: str) -> str:
    """Without article, accents, hyphens, periods and spaces, in lower case and in the singular."""
    text = _WORD_HYPHEN.sub("", _ARTICLE.sub("", _ordinals_in_digits(text)))
    decomposed = unicodedata.normalize("NFD", text.casefold())
    words = "".join(character for character in decomposed if not unicodedata.combining(character))
    words = _VARIANT.sub(lambda match: _VARIANTS[match[1]], words)
    return singular(words).replace(" ", "").replace(".", "")


def singular(word: str) -> str:
    return _PLURAL.sub(lambda match: "y" if match[1] else "", word)


def _ordinals_in_digits(text: str) -> str:
    """`third` and `3rd` both become `3th`, `nineteenth century` becomes `19th century`."""
    return _ORDINAL.sub(_ordinal, text)


def _ordinal(match: re.Match[str]) -> str:
    tens, word = match.groups()
    return f"{_ORDINALS[word.lower()] + (20 if tens else 0)}th" if word else "th"
