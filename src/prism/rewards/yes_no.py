"""Yes and no, true and false, right and wrong, in English and Chinese."""

import re

_YES = "yes yeah yep true correct 是 是的 对 对的 正确 正确的 √ ✓ ✔"
_NO = r"no nope false incorrect 否 不 不是 不对 错 错的 错误 错误的 不正确 \times ✗ ✘"
_MEANING = dict.fromkeys(map(str, _YES.split()), True) | dict.fromkeys(map(str, _NO.split()), False)
_LETTERS = {"t": True, "y": True, "f": False, "n": False}
_LEADING = re.compile(
    r"(yes|no|true|false)(?:\s*[,.;:!(]|\s-\s|\s+(?:it|they|he|she|there|because|since|this|that)\b)(.*)"
    r"|(是的?|不是|对|不对|否|错)[,.;:!](.*)",
    re.IGNORECASE,
)
_STATEMENT = re.compile(r"(?:the |this |that )?(?:statement|claim|it|this|that)(?:'s| is) (\w+)")


def meaning_of(ground_truth: str) -> bool | None:
    """None for what is neither yes nor no."""
    return _MEANING.get(ground_truth.casefold())


def read_yes_no(text: str) -> bool | None:
    """The leading yes or no decides, unless the sentence ends on the opposite."""
    text = text.casefold().rstrip("!")
    statement = _STATEMENT.fullmatch(text)
    word = statement[1] if statement else text
    if word in _MEANING or word in _LETTERS:
        return _MEANING.get(word, _LETTERS.get(word))
    leading = _LEADING.fullmatch(text)
    if not leading:
        return None
    stance = _MEANING[leading[1] or leading[3]]
    last_word = (leading[2] or leading[4] or "").rsplit(" ", 1)[-1].strip("!.,;:()")
    return stance if _MEANING.get(last_word, stance) is stance else None
