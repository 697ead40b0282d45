"""One spelling for each way of writing an answer: Unicode, LaTeX, Markdown and lead-in phrases.

`clean` keeps what an answer means (case, signs, units, order) and drops how it is typeset. Everything
behind it may assume ASCII operators, `°` for degrees, `$` for money only and single spaces.
"""

import re
import unicodedata

from prism.rewards.memory import Remembered
from prism.rewards.spelling import formula_spelling, word_spelling

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻]+")
_SUBSCRIPT_RUN = re.compile("[₀-₉]+")
_VULGAR_FRACTION = re.compile("[¼-¾⅐-⅞]")
_CIRCLED_DIGIT = re.compile("[①-⑨]")
_LOST_IN_NFKC = str.maketrans({"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "˚": "°", "º": "°"})
_SYMBOLS = str.maketrans(
    {
        "−": "-", "–": "-", "‐": "-", "‑": "-", "⁄": "/", "÷": "/", "∶": ":", "×": r"\times ", "·": r"\cdot ",
        "⋅": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
        "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ", "∪": r"\cup ", "∈": r"\in ", "∅": r"\emptyset ",
        "∥": r"\parallel ", "⊥": r"\perp ", "≅": r"\cong ", "∼": r"\sim ", "∴": "=> ", "⇒": "=> ", "→": "-> ",
        "∠": r"\angle ", "△": r"\triangle ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "′": "'", "’": "'",
        "‘": "'", "“": '"', "”": '"', "。": ".", "、": ",", "【": " ", "】": " ", "\u200b": "", "\ufeff": "",
    }
)  # fmt: skip
_ROOT = re.compile(r"([√∛∜])\s*(?:([0-9]+(?:\.[0-9]+)?|[A-Za-z])|\(([^()]*)\)|\{([^{}]*)\})")
_ROOT_NAMES = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_ESCAPED_DOLLAR = "\ue000"

_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=[A-Za-z0-9)])\*\*(?=[0-9({-])", "^"),
        (r"\*\*|`|^#+ ", ""),
        (r"\{,\}", ","),
        (r"(?<=[A-Z]) ~ (?=\\triangle)", r" \\sim "),
        (r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~", " "),
        (r"\\!|\\(?:left|right|displaystyle|limits)(?![A-Za-z])", ""),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"(?<=[0-9])\s?(?:\.\.\.+|\\[lc]?dots(?![A-Za-z]))", r"\\ldots "),
        (r"\\[dtc]frac(?![A-Za-z])", r"\\frac"),
        (r"\\frac\s*([0-9])\s*(?=[0-9{])", r"\\frac{\1}"),
        (r"(\\frac\s*\{[^{}]*\})\s*([0-9])", r"\1{\2}"),
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])\s*|<=", r"\\le "),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])\s*|(?<![<=])>=", r"\\ge "),
        (r"\\neq(?![A-Za-z])|!=", r"\\ne "),
        (r"\\(?:lt|langle)(?![A-Za-z])", "<"),
        (r"\\(?:gt|rangle)(?![A-Za-z])", ">"),
        (r"\\(?:therefore|Rightarrow|implies)(?![A-Za-z])", "=>"),
        (r"\\(?:to|rightarrow)(?![A-Za-z])", "->"),
        (r"\\colon(?![A-Za-z])", ":"),
        (r"\\pounds(?![A-Za-z])", "£"),
        (r"\\(?:begin|end)\{(?:align(?:ed)?|equation|gathered|split)\*?\}", ""),
        (r"&\s?=", "="),
        (r"\\overline\{([A-Z]{2})\}", r"\1"),
        (r"\\varnothing(?![A-Za-z])", r"\\emptyset"),
        (r"\\Omega(?![A-Za-z])", "Ω"),
        (r"\\mu(?![A-Za-z])\s*", "μ"),
        (r"\\lg(?![A-Za-z])", r"\\log_{10}"),
        (r"\\overrightarrow(?![A-Za-z])", r"\\vec"),
        (r"(?<!\\)\b[iI]nf(?:inity)?\b", r"\\infty "),
        (r"(?<=[0-9])\s?[xX]\s?(?=[0-9])|\sby\s(?=[0-9])", r" \\times "),
        (r"(?<=[A-Z])\s?//\s?(?=[A-Z])", r" \\parallel "),
        (r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|°)|\\degree(?![A-Za-z]))", "°"),
        (r"\^\s*\{?\s*\\prime\s*\}?", "'"),
        (r"(?<!\\)\\([%&#_])", r"\1"),
        (r"\{\\(?:rm|bf|it|sf)\s+([^{}]*)\}", r"\1"),
        (
            r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mathsf|mbox|fbox|ce|operatorname|underline)"
            r"\s*\{((?:[^{}]|\{[^{}]*\})*)\}",
            r"\1",
        ),
        (r"\s(?:is|are)\s(?:strictly\s)?(?:greater|larger|more)\sthan\s(?!or\b)", " > "),
        (r"\s(?:is|are)\s(?:strictly\s)?(?:less|smaller)\sthan\s(?!or\b)", " < "),
        (r"\s(?:is|are)\s(?:greater\sthan\sor\sequal\sto|at\sleast)\s", r" \\ge "),
        (r"\s(?:is|are)\s(?:less\sthan\sor\sequal\sto|at\smost)\s", r" \\le "),
    )
)
_CHINESE_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("大于(?:或)?等于|不小于|不少于", r"\\ge "),
        ("小于(?:或)?等于|不大于|不超过", r"\\le "),
        ("不等于", r"\\ne "),
        ("大于", ">"),
        ("小于", "<"),
        ("等于", "="),
    )
)
_CHINESE = re.compile("[一-鿿]")
_CASES = re.compile(r"\\begin\{cases\}(.*)\\end\{cases\}")
# Nothing above applies to such a text; `inf` is the one plain word that is rewritten, `is` begins the others.
_PLAIN = re.compile(r"(?!.*(?:inf|\b(?:is|are|by)\b|[0-9] ?x|[0-9] ?\.\.\.))[A-Za-z0-9 .,;:()'\"%+-]*", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\s*\{")
_INLINE_MATH = re.compile(r"\$([^$\s](?:[^$]*[^$\s])?)\$(?![0-9])")
_EXCLAMATION = re.compile(r"(?<=[a-z]{2})!+$")
_LEAD_IN = re.compile(
    r"(?:\b(?:answer|result|ans|solution)\b|答案|结果|答(?=:))\s*"
    r"(?:应?[是为选]|\b(?:is|are|was|would be|must be|should be|equals)\b|=|:|\.(?= ))\s*:?\s*",
    re.IGNORECASE,
)
_OPENING_PHRASE = re.compile(
    r"(?:(?:so|thus|hence|therefore|then|finally)\b,?|=>|->|=|:"
    r"|(?:we|i)\s(?:can\s)?(?:get|have|find|obtain|count|see)\b(?:\sthat\b)?"
    r"|(?:it|that|this|there|they|he|she)(?:'s|\s(?:is|are|equals|has|have|will be)\b)"
    r"|(?:in\s)?the\syear\b|in(?=\s[12][0-9]{3}$)|(?:the\s)?ratio(?:\sof|\sis)?(?=\s)"
    r"|not\s[^.,]*,?\sbut\b(?:\srather\b)?"
    r"|(?:所以|因此|故|则|即)[,:]?|[是为得有](?=\s*[-+0-9.\\零一二三四五六七八九十百负])"
    r")\s*",
    re.IGNORECASE,
)
_CLOSING_PHRASE = re.compile(
    r"\s+is the (?:correct |final |right )?answer$|,\s?not\s.*$|,?\s(?:because|since)\s.*$"
    r"|\s(?:in total|in all|altogether)$",
    re.IGNORECASE,
)
_MAX_PHRASES = 3


@Remembered
def clean(text: str) -> str:
    """`text` with its typesetting removed, idempotent for plain answers."""
    text = " ".join(text.split())  # one space at a time keeps the patterns linear
    return _unwrap(text if _PLAIN.fullmatch(text) else _rewrite(text))


def _rewrite(text: str) -> str:
    if not text.isascii():
        text = _in_ascii(text)
    text = text.replace("\0", " ").replace(r"\$", _ESCAPED_DOLLAR).replace("$$", "$")
    text = _INLINE_MATH.sub(r" \1 ", text)
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    text = _CASES.sub(lambda match: match[1].replace(r"\\", ","), text)
    boxes = list(_BOXED.finditer(text))
    closing = matching_brace(text, boxes[0].end() - 1) if len(boxes) == 1 else -1
    if closing >= 0:
        text = f"{text[: boxes[0].start()]}{text[boxes[0].end() : closing]}{text[closing + 1 :]}"
    return text.replace(_ESCAPED_DOLLAR, "$")


def _in_ascii(text: str) -> str:
    """Unicode's compatibility forms and mathematical symbols as ASCII and LaTeX; other letters stay."""
    text = _SUPERSCRIPT_RUN.sub(lambda match: f"^{_braced(match.group().translate(_SUPERSCRIPTS))}", text)
    text = _SUBSCRIPT_RUN.sub(lambda match: f"_{_braced(match.group().translate(_SUBSCRIPTS))}", text)
    text = _VULGAR_FRACTION.sub(lambda match: " " + match.group(), text)
    text = _CIRCLED_DIGIT.sub(lambda match: f" ({ord(match.group()) - ord('①') + 1}) ", text)
    text = unicodedata.normalize("NFKC", text.translate(_LOST_IN_NFKC))
    text = _ROOT.sub(lambda match: f"{_ROOT_NAMES[match[1]]}{{{match[2] or match[3] or match[4]}}}", text)
    if _CHINESE.search(text):
        for pattern, replacement in _CHINESE_REWRITES:
            text = pattern.sub(replacement, text)
    return text.translate(_SYMBOLS)


def _braced(digits: str) -> str:
    return digits if len(digits) == 1 else f"{{{digits}}}"


def _unwrap(text: str) -> str:
    """Drop boxes, quotes, outer spaces and closing punctuation until nothing more comes off."""
    previous = None
    while text != previous:
        previous = text
        text = _EXCLAMATION.sub("", " ".join(text.split()).rstrip(".,; "))
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


@Remembered
def strip_phrases(text: str) -> str:
    """What is left of a cleaned sentence after its last "the answer is" and the like, and before a reason."""
    lead_ins = [match.end() for match in _LEAD_IN.finditer(text)]
    text = _CLOSING_PHRASE.sub("", text[lead_ins[-1] :] if lead_ins else text).strip() or text
    for _ in range(_MAX_PHRASES):
        opening = _OPENING_PHRASE.match(text)
        if not opening or opening.end() == len(text):
            break
        text = text[opening.end() :]
    return text


@Remembered
def text_key(text: str) -> str:
    """Two cleaned texts with one key say the same."""
    if "\\" in text or any(character.isdigit() for character in text):
        return formula_spelling(text)
    return word_spelling(text)
