"""Texts that a browser would run if somebody showed them without escaping them.

Nothing of this project does; this is for those who put captions on pages of their own. So it looks for what can run
behind the first tag that may have attributes, and models no browser: where quotes, a comment or a `<textarea>` end is
what attacks on parsers turn on. Mathematics may have such a tag ("x<y and"), but not what is looked for behind it.

Every search is one pass, whatever the text. `html.parser` takes time quadratic in `<a <a <a …` in Python 3.11.
"""

import html
import re

_TAG = re.compile(r"<[a-z][^\s/>]*+([\s/]?)", re.IGNORECASE)
"""The group is empty where no attribute can follow, as in `<caption>`."""

_RUNNING_ELEMENT = re.compile(r"<(?:script|iframe)(?![\w-])", re.IGNORECASE)
_HANDLER = re.compile(r"(?<![\w-])on(?!set|ion|line|ward|going)[a-z]{3,}+\s*+=", re.IGNORECASE)
"""No event has a name of two letters ("once", "only", "onto"), nor one of the words left out here."""

_LOADING_ELEMENTS = tuple(
    (
        re.compile(rf"<{element}(?![\w-])", re.IGNORECASE),
        re.compile(rf"(?<![\w-]){attribute}\s*+=", re.IGNORECASE),
    )
    for element, attribute in (
        ("base", "href"),
        ("link", "href"),
        ("meta", "http-equiv"),
        ("object", "data"),
        ("embed", "src"),
    )
)
"""Elements that do something by this attribute only: "x<base" is mathematics."""

_SKIPPED_IN_ADDRESS = re.compile(r"[\x00-\x20]+")
_SCRIPT_ADDRESS = re.compile(r"=[\"']?javascript:", re.IGNORECASE)


def has_active_html(text: str) -> bool:
    """Whether the text has elements that run or load something, event handlers or `javascript:` addresses.

    Time is linear in the text's length.
    """
    if _RUNNING_ELEMENT.search(text):
        return True
    tag = next((tag for tag in _TAG.finditer(text) if tag[1]), None)
    if tag is None:
        return False
    if _HANDLER.search(text, tag.end()):
        return True
    for element, attribute in _LOADING_ELEMENTS:
        found = element.search(text)
        if found is not None and attribute.search(text, found.end()):
            return True
    return _has_script_address(text)


def _has_script_address(text: str) -> bool:
    try:
        decoded = html.unescape(text)
    except ValueError:
        return True  # a character reference of thousands of digits, which nobody writes in good faith
    return _SCRIPT_ADDRESS.search(_SKIPPED_IN_ADDRESS.sub("", decoded)) is not None
