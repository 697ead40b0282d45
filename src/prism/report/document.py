"""The frame of every page: one file that asks nothing of the outside, and the switch between decoding modes."""

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from prism.errors import StorageError
from prism.report.markup import Html, element
from prism.report.results import MODES


def document(
    title: str,
    *,
    header: Html,
    sections: Mapping[str, tuple[str, Html | None]],
    modes: Sequence[str] = MODES,
    origin: str = "the run directory",
) -> str:
    """`sections` maps the id of each to its title in the navigation and its content, None to leave it out; without
    `modes` there is no switch. `origin` is where everything was read from."""
    present = {name: (heading, section) for name, (heading, section) in sections.items() if section is not None}
    body = element(
        "body",
        header,
        _navigation({name: heading for name, (heading, _) in present.items()}, modes),
        element("main", *(section for _, section in present.values())),
        element("footer", f"Everything on this page was read from {origin}; nothing is loaded from elsewhere."),
    )
    return f"<!doctype html>\n{element('html', _head(title), body, lang='en')}\n"


def page_header(kicker: str, title: str, facts: Mapping[str, str], *more: Html) -> Html:
    listed = [element("div", element("dt", name), element("dd", value)) for name, value in facts.items()]
    heading = (element("p", kicker, class_="kicker"), element("h1", title))
    return element("header", *heading, element("dl", *listed, class_="facts"), *more)


def status(complete: str, incomplete: str, lines: Sequence[str], notes: Sequence[str] = ()) -> Html:
    """The sentence `complete`, or `incomplete` with the lines that say what is missing; below either the `notes`."""
    noted = [element("ul", *(element("li", note) for note in notes))] if notes else []
    if not lines:
        return element("div", complete, *noted, class_="status")
    items = [element("li", line) for line in lines]
    return element("div", element("b", incomplete), element("ul", *items), *noted, class_="status partial")


def _head(title: str) -> Html:
    style = files("prism.report").joinpath("report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Html(style)),
    )


def _navigation(titles: Mapping[str, str], modes: Sequence[str]) -> Html:
    links = [element("a", title, href=f"#{name}") for name, title in titles.items()]
    choices = [
        element(
            "label",
            element("input", type="radio", name="mode", id=f"mode-{mode}", checked=mode == modes[0]),
            mode,
        )
        for mode in modes
    ]
    switch = element("fieldset", element("legend", "Decoding"), element("span", *choices, class_="switch"))
    return element("nav", element("div", *links, switch if modes else None))


def write_page(path: Path, text: str) -> None:
    """Beside its place and then moved there, so that a reader never meets half a page.

    Raises StorageError where it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"{path}: cannot write the report ({error.strerror}); choose another place for it"
        ) from error
