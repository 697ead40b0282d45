"""Markup in which text cannot become code: every string is escaped unless it is already `Html`."""

from collections.abc import Iterable, Sequence
from html import escape


class Html(str):
    """Text that is markup already. Only `element` and `join` make it from outside data, and both escape."""

    __slots__ = ()


Child = str | int | None
Attribute = str | int | float | bool | None

_VOID = frozenset({"br", "img", "input", "meta", "circle", "line", "path", "polyline", "rect"})


def as_html(child: Child) -> Html:
    if child is None:
        return Html("")
    return child if isinstance(child, Html) else Html(escape(str(child), quote=True))


def join(*children: Child, separator: str = "") -> Html:
    return Html(separator.join(as_html(child) for child in children))


def element(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """`class_` stands for `class`, underscores for hyphens; an attribute of None or False is left out.

    >>> element("p", "a < b", class_="note", hidden=True)
    '<p class="note" hidden>a &lt; b</p>'
    """
    parts = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        attribute = key.rstrip("_").replace("_", "-")
        shown = f"{value:.6g}" if isinstance(value, float) else value
        parts.append(attribute if value is True else f'{attribute}="{escape(str(shown), quote=True)}"')
    opening = " ".join(parts)
    if name in _VOID:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(*children)}</{name}>")


def cells_table(titles: Sequence[str], rows: Iterable[Iterable[Child]]) -> Html:
    """A plain table that scrolls by itself where it is too wide."""
    head = element("thead", element("tr", *(element("th", title, scope="col") for title in titles)))
    body = element("tbody", *(element("tr", *(element("td", cell) for cell in row)) for row in rows))
    return element("div", element("table", head, body, class_="cells"), class_="scroll")
