"""One spelling for each way of writing an answer: Unicode, LaTeX, Markdown and lead-in phrases.

`clean` keeps what an answer means (case, signs, units, order) and drops how it is typeset. Everything
behind it may assume ASCII operators, `°` for degrees, `$` for money only and single spaces.
"""

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_SYMBOLS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "⁄": "/", "÷": "/", "∶": ":", "×": r"\times ", "·": r"\cdot ",
        "⋅": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
        "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∥": r"\parallel ", "⊥": r"\perp ",
        "∠": r"\angle ", "△": r"\triangle ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "′": "'", "’": "'",
        "‘": "'", "“": '"', "”": '"', "。": ".", "、": ",", "º": "°", "\u200b": "", "\ufeff": "",
    }
)  # fmt: skip
_ROOT = re.compile(r"√\s*(?:([0-9]+(?:\.[0-9]+)?|[A-Za-z])|\(([^()]*)\)|\{([^{}]*)\})")
_ESCAPED_DOLLAR = "\ue000"

_LATEX_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\*\*|`", ""),
        (r"\{,\}", ","),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\!|\\(?:left|right|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9])\s*([0-9])", r"\\frac{\1}{\2}"),
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])\s*|<=", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])\s*|>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
        (r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|°)|\\degree(?![A-Za-z]))", "°"),
        (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        (r"(?<!\\)\\([%&#_])", r"\1"),
        (r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|operatorname)\s*\{([^{}]*)\}", r"\1"),
    )
)
_BOXED = re.compile(r"\\f?boxed\s*\{")
_INLINE_MATH = re.compile(r"\$([^$\s](?:[^$]*[^$\s])?)\$(?![0-9])")
_LEAD_IN = re.compile(
    r"(?:\b(?:answer|result)\b|答案|结果)\s*(?:应?[是为选]|\b(?:is|are|was|must be|should be)\b|=|:)\s*:?\s*",
    re.IGNORECASE,
)
_CLOSING_PHRASE = re.compile(r"\s+is the (?:correct |final |right )?answer$|,\s?not\s.*$", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)
_WORD_HYPHEN = re.compile(r"(?<=[a-z]{2})-(?=[a-z]{2})")


@lru_cache(maxsize=8192)
def clean(text: str) -> str:
    """`text` with its typesetting removed, idempotent for plain answers."""
    text = _SUPERSCRIPT_RUN.sub(_superscript, " ".join(text.split()))  # one space at a time keeps the patterns linear
    text = _VULGAR_FRACTION.sub(lambda match: " " + match.group(), text)
    text = unicodedata.normalize("NFKC", text)
    text = _ROOT.sub(lambda match: rf"\sqrt{{{match[1] or match[2] or match[3]}}}", text).translate(_SYMBOLS)
    text = text.replace(r"\$", _ESCAPED_DOLLAR).replace("$$", "$")
    text = _INLINE_MATH.sub(r" \1 ", text)
    for pattern, replacement in _LATEX_REWRITES:
        text = pattern.sub(replacement, text)
    return _unwrap(text.replace(_ESCAPED_DOLLAR, "$"))


def _superscript(match: re.Match[str]) -> str:
    digits = match.group().translate(_SUPERSCRIPTS)
    return f"^{digits}" if len(digits) == 1 else f"^{{{digits}}}"


def _unwrap(text: str) -> str:
    """Drop boxes, quotes, outer spaces and closing punctuation until nothing more comes off."""
    previous = None
    while text != previous:
        previous = text
        text = " ".join(text.split()).rstrip(".,; ")
        boxed = _BOXED.match(text)
        if boxed and matching_brace(text, boxed.end() - 1) == len(text) - 1:
            text = text[boxed.end() : -1]
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'*_" and text[0] not in text[1:-1]:
            text = text[1:-1]
    return text


def matching_brace(text: str, opening: int) -> int:
    """Index of the `}` that closes the `{` at `opening`, or -1."""
    depth = 0
    for index in range(opening, len(text)):
        depth += (text[index] == "{") - (text[index] == "}")
        if depth == 0:
            return index
    return -1


def last_boxed(text: str) -> str | None:
    r"""Content of the last complete `\boxed{…}`."""
    for match in reversed(list(_BOXED.finditer(text))[-8:]):
        closing = matching_brace(text, match.end() - 1)
        if closing >= 0:
            return text[match.end() : closing]
    return None


def strip_lead_in(text: str) -> str:
    """What is left of a cleaned sentence after its last "the answer is" or before "is the answer" or ", not …"."""
    lead_ins = [match.end() for match in _LEAD_IN.finditer(text)]
    return _CLOSING_PHRASE.sub("", text[lead_ins[-1] :] if lead_ins else text).strip()


def text_key(text: str) -> str:
    """Two cleaned texts with one key say the same: no spaces, and in words no case, article or hyphen.

    Where digits or LaTeX stand, case is kept: it tells mW from MW and X from x.
    """
    if "\\" in text or any(character.isdigit() for character in text):
        return text.replace(" ", "")
    words = _ARTICLE.sub("", text).casefold()
    return _WORD_HYPHEN.sub("", words).replace(" ", "")
