"""A data set's card: how many rows each step of curation let go on, what is left, and examples with their pictures.

Drawn from `card/statistics.json` of a store and the pictures beside it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.errors import DataError
from prism.report.charts import plain
from prism.report.document import document, page_header, write_page
from prism.report.funnel import funnel_chart, funnel_table
from prism.report.markup import Html, element
from prism.report.pictures import embedded_image
from prism.report.plots import histogram, integer_bins, shares
from prism.report.samples import response_parts

_STATISTICS = Path("card", "statistics.json")
_COLOURS = {"alignment": "c-align", "rl": "c-prism-grpo", "sft": "c-sft"}
_NAMES = {"alignment": "Alignment", "rl": "RL", "sft": "SFT"}
_TAIL = 0.01
"""The share of the largest values that a histogram may leave out, so that one of them does not flatten it."""

Statistics = Mapping[str, Any]


def render_data_card(store: Path, output: Path | None = None) -> Path:
    """Write the card (`card.html` in the store by default) and return its path.

    Raises DataError where the store has no statistics or they are damaged, and StorageError.
    """
    path = store / "card.html" if output is None else output
    statistics = _read(store / _STATISTICS)
    try:
        page = _page(store, statistics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{store / _STATISTICS} is damaged: {error!r}; run `prism data stats` again") from error
    write_page(path, page)
    return path


def _read(path: Path) -> Statistics:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); run `prism data stats` first") from error


def _page(store: Path, statistics: Statistics) -> str:
    sections = {
        "funnel": ("Funnel", _funnel_section(statistics)),
        "splits": ("Splits", _splits_section(statistics)),
        "distributions": ("Distributions", _distributions_section(statistics)),
        "examples": ("Examples", _examples_section(store, statistics)),
        "spending": ("Spending", _spending_section(statistics)),
    }
    title = str(statistics["store"])
    header = page_header("PRISM data card", title, _facts(statistics))
    return document(f"{title}: PRISM data card", header=header, sections=sections, modes=(), origin="the store")


def _facts(statistics: Statistics) -> dict[str, str]:
    imports = [entry for entry in statistics["funnels"] if _is_import(entry)]
    totals = _totals(statistics)
    facts = {
        "Sources": ", ".join(str(source) for source in statistics["sources"]) or "none",
        "Rows read": f"{sum(entry['num_in'] for entry in imports):,}",
        "Rows imported": f"{sum(entry['num_kept'] for entry in imports):,}",
        "Rows that went through every step": f"{sum(totals.values()):,}",
    }
    return facts | {name_of(split): f"{count:,} rows" for split, count in totals.items()}


def _is_import(entry: Statistics) -> bool:
    return str(entry["step"]).startswith("import of ")


def name_of(split: str) -> str:
    return _NAMES.get(split, split.capitalize())


def _totals(statistics: Statistics) -> dict[str, int]:
    totals: dict[str, int] = {}
    for splits in statistics["sources"].values():
        for split, count in splits.items():
            totals[split] = totals.get(split, 0) + count
    known = [split for split in _COLOURS if split in totals]
    return {split: totals[split] for split in (*known, *sorted(totals.keys() - _COLOURS.keys()))}


def _funnel_section(statistics: Statistics) -> Html:
    lead = "Every step's rows: those it kept, those it passed on because they are not its business, those it dropped."
    return element(
        "section",
        element("h2", "Funnel"),
        element("p", lead, class_="lead"),
        funnel_chart(statistics["funnels"]),
        funnel_table(statistics["funnels"]),
        id="funnel",
    )


def _splits_section(statistics: Statistics) -> Html:
    totals = _totals(statistics)
    if not totals:
        absent = element("p", "No row has gone through every step yet.", class_="absent")
        return element("section", element("h2", "Splits"), absent, id="splits")
    head = element("tr", *(element("th", text, scope="col") for text in ("Source", *map(name_of, totals))))
    rows = [
        element(
            "tr",
            element("th", source, scope="row"),
            *(element("td", f"{splits.get(split, 0):,}") for split in totals),
        )
        for source, splits in statistics["sources"].items()
    ]
    table = element("table", element("thead", head), element("tbody", *rows))
    return element(
        "section",
        element("h2", "Splits"),
        element("p", "Rows that went through every step, by where they came from and what they serve.", class_="lead"),
        element("div", table, class_="scroll"),
        id="splits",
    )


def _distributions_section(statistics: Statistics) -> Html | None:
    groups = [_distribution(entry) for entry in statistics["distributions"] if entry["counts"]]
    if not groups:
        return None
    lead = "Shares of a split's rows. Where a value is above all bars' range, the caption names the largest."
    return element(
        "section", element("h2", "Distributions"), element("p", lead, class_="lead"), *groups, id="distributions"
    )


def _distribution(entry: Statistics) -> Html:
    """One panel for each split, all with the same bins and height."""
    by_split = {
        split: {int(value): int(count) for value, count in counts.items()} for split, counts in entry["counts"].items()
    }
    shown = [_without_tail(counts) for counts in by_split.values()]
    bins = integer_bins(shown)
    top = 1.08 * max(max(shares(counts, bins)) for counts in by_split.values())
    panels = []
    for split, counts in by_split.items():
        total = sum(counts.values())
        mean = sum(value * count for value, count in counts.items()) / total
        note = f"n = {total:,}, mean {plain(mean)}, largest {max(counts):,}"
        title = f"{entry['title']}, {name_of(split)}"
        colour = _COLOURS.get(split, "c-base")
        chart = histogram(title, counts, {}, bins=bins, top=top or 1.0, colour=colour)
        panels.append(
            element("figure", element("figcaption", name_of(split), element("small", note)), chart, class_="chart")
        )
    return element("div", element("h3", entry["title"]), element("div", *panels, class_="panels"))


def _without_tail(counts: Mapping[int, int]) -> dict[int, int]:
    allowed = int(_TAIL * sum(counts.values()))
    kept = dict(counts)
    for value in sorted(counts, reverse=True):
        allowed -= counts[value]
        if allowed < 0:
            break
        del kept[value]
    return kept


def _examples_section(store: Path, statistics: Statistics) -> Html | None:
    groups: list[Html] = []
    for split in dict.fromkeys(example["split"] for example in statistics["examples"]):
        cards = [_card(store, example) for example in statistics["examples"] if example["split"] == split]
        groups += [
            element("h3", name_of(split), class_=_COLOURS.get(split)),
            element("div", *cards, class_="cards"),
        ]
    if not groups:
        return None
    lead = "Chosen by the hashes of their ids, not by quality; pictures are made smaller."
    return element("section", element("h2", "Examples"), element("p", lead, class_="lead"), *groups, id="examples")


def _card(store: Path, example: Statistics) -> Html:
    pictures = [embedded_image(store, str(name), root=store, place="the store") for name in example["images"]]
    num_hidden = example["num_images"] - len(pictures)
    more = element("p", f"and {num_hidden} more", class_="absent") if num_hidden > 0 else None
    texts = [str(example["question"]).replace("<image>", "▣ ").strip(), *map(str, example["choices"])]
    prompt = element(
        "div",
        element("div", *pictures, more, class_="pictures") if pictures else None,
        element("div", *(element("p", text) for text in texts), _expected(example)),
        class_="prompt",
    )
    chips = [element("li", example["id"]), *_chips(example)]
    text = example["response"]
    parts = (
        [element("p", "RL has no demonstration of it.", class_="absent")]
        if text is None
        else response_parts(str(text), is_valid=bool(example["is_valid"]))
    )
    response = element("div", element("ul", *chips, class_="chips"), *parts, class_="response")
    return element("article", prompt, response, class_="card")


def _expected(example: Statistics) -> Html | None:
    return element("p", "Expected: ", element("b", str(example["answer"]))) if example["answer"] else None


def _chips(example: Statistics) -> list[Html]:
    return [element("li", f"{name} {value:.2f}") for name, value in example["facts"].items()]


def _spending_section(statistics: Statistics) -> Html | None:
    spent: list[tuple[str, Statistics]] = [
        (step, spending) for step, spending in statistics["spending"].items() if spending["attempts"]
    ]
    if not spent:
        return None
    names = ("Step", "Requests", "Attempts", "Prompt tokens", "Completion tokens", "Cost", "of which not certain")
    head = element("tr", *(element("th", name, scope="col") for name in names))
    rows = [element("tr", *_spending_cells(step, spending)) for step, spending in spent]
    table = element("table", element("thead", head), element("tbody", *rows))
    return element("section", element("h2", "Spending"), element("div", table, class_="scroll"), id="spending")


def _spending_cells(step: str, spending: Statistics) -> Sequence[Html]:
    counts = [spending["num_requests"], sum(spending["attempts"].values())]
    counts += [spending["prompt_tokens"], spending["completion_tokens"]]
    costs = [spending["cost"], spending["cost_at_most"]]
    cells = [f"{count:,}" for count in counts] + [f"{cost:.2f}" for cost in costs]
    return [element("th", step, scope="row"), *(element("td", cell) for cell in cells)]
