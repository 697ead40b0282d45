"""Whatever text goes in, only the elements asked for come out."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prism.report.markup import Html, element, join


class _Collector(HTMLParser):
    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_and_attributes_are_escaped() -> None:
    assert element("p", "a < b & c", title='"x"') == '<p title="&quot;x&quot;">a &lt; b &amp; c</p>'


def test_markup_is_not_escaped_twice() -> None:
    assert element("p", element("b", "&")) == "<p><b>&amp;</b></p>"


def test_attribute_names_and_absent_attributes() -> None:
    markup = element("td", class_="up", aria_label="x", colspan=2, title=None, hidden=False, checked=True)
    assert markup == '<td class="up" aria-label="x" colspan="2" checked></td>'


def test_an_attribute_may_be_called_name() -> None:
    assert element("meta", name="viewport") == '<meta name="viewport"/>'


@pytest.mark.parametrize("child", ["", None])
def test_nothing_becomes_nothing(child: str | None) -> None:
    assert element("p", child) == "<p></p>"


@given(text=st.text(st.characters(exclude_characters="\r\x00", exclude_categories=("Cs",))))
def test_any_text_survives_the_parser_as_text(text: str) -> None:
    found = _Collector(element("p", text, title=text))
    assert found.tags == [("p", {"title": text})]
    assert found.text == text


def test_join_escapes_strings_only() -> None:
    assert join("<", Html("<br/>"), separator=",") == "&lt;,<br/>"
