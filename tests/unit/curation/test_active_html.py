"""What a browser would run is found, mathematics is not, and no text takes long."""

import time

import pytest

from prism.curation.active_html import has_active_html

ACTIVE = [
    "<script>alert(1)</script>",
    "a <ScRiPt src=x",
    "<a<1 onclick=x>",
    "x<script",
    "<iframe src=x>",
    "<IFRAME/onload=f()>",
    "<svg/onload=alert(1)>",
    "<svg><animate onbegin = alert(1) attributeName=x>",
    "<img src='x'onerror=alert(1)>",
    '<img alt=">" onerror=alert(1)>',
    "<img src=x onerror\n=\nalert(1)",
    "<details open\x0contoggle=alert(1)>",
    "<!-- <a title='-->' k=\"<img alt='\" m=\"' onerror=alert(1)>",
    '<textarea><a title="</textarea><img src=x onerror=alert(1)>">',
    "<a href='javascript:x()'>y</a>",
    "<a href=JavaScript:x()>y</a>",
    '<a href=" java\tscript\n: x()">y</a>',
    "<a href='&#106;avascript:x()'>y</a>",
    "<a href=&#x0006A;avascript&colon;x()>y</a>",
    '<a href="\x01javascript:x()">y</a>',
    "<a href='&#" + "1" * 5000 + ";'>",
    "<link rel=stylesheet href=//x.y/z.css>",
    "<base href=//x.y>",
    "<meta http-equiv=refresh content='0;url=//x.y'>",
    "<object data=x.svg>",
    "<embed src=x.svg>",
]
HARMLESS = [
    "",
    "image distance < object distance = 3 cm",
    "if x < base then y = 2",
    "if x<base then the href is 3, and data = 4",
    "a < link length",
    "a<link length",
    "object<object distance, so that base = 5",
    "x < 3 and one = 1",
    "x<y and one = 1, once = 2, only = 3, onto = 4, so > 5",
    "x<y at the onset = 3 s, online = 4",
    "Is a < b and <b>c</b> > d, once = twice?",
    "x <y, y<z, z> w: f(x) = <v, w>",
    "\\langle a<b \\rangle, n = 3, on = 5",
    "<caption>A table</caption><think>1. <b>bold</b></think><answer>$x<y$</answer>",
    "<image>What does onclick = f do?",
    "<caption>A <b>button</b> has onclick='go()' and href = javascript:x</caption><think>t</think>",
    "The handler onclick = f and javascript: addresses, without a tag: 1 < 2",
    "<b>JavaScript: the good parts</b>",
    "&lt;script&gt; is written so",
    "x<scripts, y<iframes, <metal>, <based href",
]


@pytest.mark.parametrize("text", ACTIVE)
def test_what_a_browser_would_run(text: str) -> None:
    assert has_active_html(text)
    assert has_active_html(f"If 1 < 2 and x<y, then: {text} > 3")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_it_would_not(text: str) -> None:
    assert not has_active_html(text)


@pytest.mark.parametrize(
    "piece",
    ["<a=" + " " * 50, " ", "<a ", "<a b", "<a x='", "<a>", "<a<", "<", "<o", "<base ", "<base href", "<meta", "<link",
     "href ", "onabc ", "on", "=", "= ", "='", "&#", "&a", "&#1;", "<!--", "java", "\x00"],
)  # fmt: skip
def test_a_long_text_is_read_once(piece: str) -> None:
    start = time.process_time()
    assert not has_active_html("<a=" + piece * (2_000_000 // len(piece)))
    assert time.process_time() - start < 5
