"""An LLM judge: asked whether a response's answer agrees with the reference, where rules cannot tell.

Every judgement is a line of a JSONL log, which is also the cache that a cut-off evaluation goes on from.
"""

import hashlib
import importlib.resources
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from prism.errors import DataError
from prism.evals.benchmarks.benchmark import Judgement
from prism.evals.benchmarks.rows import LETTERS
from prism.records import Prompt
from prism.rollout.openai_client import ChatReply, ChatRequest, chat, served_model
from prism.rollout.openai_server import ChatServer
from prism.runtime.atomic import storage_errors
from prism.runtime.hashing import canonical_json, config_sha256
from prism.runtime.jsonl import JsonlLog

Template = Literal["answer", "statement"]
"""`answer` compares with a reference answer, `statement` with a sentence that states the facts (HallusionBench)."""

JUDGEMENTS: tuple[Judgement, ...] = get_args(Judgement)

LONGEST_PREDICTION = 20_000
"""Characters of a response that the judge sees, counted from the end, where the answer is. Runaway text is longer."""

_PLACEHOLDER = re.compile(r"\{(question|ground_truth|prediction|fence)\}")
_DRESS = " \t\r\n*_`\"'."
_VERDICT = re.compile(r"""(?:verdict[*_]*:[\s*_`"']*)?(correct|incorrect|unclear)""", re.IGNORECASE)
_FIELDS = ("request_sha256", "verdict", "is_parsed", "reply", "num_prompt_tokens", "num_completion_tokens")
_RULE_VERDICTS: dict[bool | None, Judgement] = {True: "correct", False: "incorrect", None: "unclear"}


@dataclass(frozen=True, slots=True)
class Case:
    """What the judge compares. `ground_truth` is the reference answer or, for `statement`, the facts in words."""

    question: str
    ground_truth: str
    prediction: str
    template: Template = "answer"


def reference_answer(prompt: Prompt) -> str:
    """What a judge is told to compare with: every answer that counts as right, an option's letter with its text."""
    given = (answer for answer in (prompt.answer, *prompt.equivalents) if answer.strip())
    answers = list(dict.fromkeys(_with_option(answer, prompt.choices) for answer in given))
    if len(answers) < 2:
        return answers[0] if answers else prompt.answer
    return "\n".join(["Each of these alone is right:", *(f"- {answer}" for answer in answers)])


def _with_option(answer: str, choices: Sequence[str]) -> str:
    place = LETTERS.find(answer) if len(answer) == 1 else -1
    return f"{answer}. {choices[place]}" if 0 <= place < len(choices) else answer


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the judge said of one case. A reply that is no verdict is "unclear" and not `is_parsed`.

    Token counts are those of the request when it was made, None where the server does not tell; a
    `is_cached` ruling cost nothing this time.
    """

    verdict: Judgement
    is_parsed: bool
    reply: str
    request_sha256: str
    num_prompt_tokens: int | None
    num_completion_tokens: int | None
    is_cached: bool


class Judge:
    """A judge model behind `server`, asked at temperature 0; `log` is this judge's alone.

    The log's lines belong to their request by a hash over everything that decides the reply: the model's
    name, what the server says it is, the template, the filled prompt, the token limit and the server's extra
    settings. Another model or template therefore never finds them. The address of the server is no part of it.
    """

    def __init__(self, server: ChatServer, log: Path, *, max_tokens: int = 1024) -> None:
        self._server = server
        self._max_tokens = max_tokens
        self._served: dict[str, str] | None = None
        self._has_asked = False
        self._log, self._rows = _open_log(log)

    def judge(self, cases: Sequence[Case]) -> list[Ruling]:
        """One ruling per case, in order; equal cases are asked once. Raises RolloutError, with the log kept."""
        if not cases:
            return []
        if not self._has_asked:
            self._served = served_model(self._server)
            self._has_asked = True
        prompts = [fill(case) for case in cases]
        hashes = [self._hash(case.template, prompt) for case, prompt in zip(cases, prompts, strict=True)]
        new: dict[str, tuple[Template, str]] = {
            key: (case.template, prompt)
            for key, case, prompt in zip(hashes, cases, prompts, strict=True)
            if key not in self._rows
        }
        self._ask(new)
        return [_ruling(self._rows[key], is_cached=key not in new) for key in hashes]

    def _ask(self, new: Mapping[str, tuple[Template, str]]) -> None:
        keys = list(new)

        def requests() -> Iterator[ChatRequest]:
            for _, prompt in new.values():
                yield ChatRequest("judgement", [{"role": "user", "content": prompt}], 0.0, self._max_tokens)

        def record(number: int, reply: ChatReply) -> None:
            key = keys[number]
            row = self._row(key, *new[key], reply)
            self._log.append(row)
            self._rows[key] = row

        chat(self._server, requests(), record)

    def _hash(self, template: Template, prompt: str) -> str:
        return config_sha256(self._identity(template) | {"prompt": prompt})

    def _identity(self, template: Template) -> dict[str, Any]:
        return {
            "model": self._server.model,
            "served": self._served,
            "template_sha256": template_sha256(template),
            "max_tokens": self._max_tokens,
            "extra_body": dict(self._server.extra_body),
        }

    def _row(self, key: str, template: Template, prompt: str, reply: ChatReply) -> dict[str, Any]:
        verdict = parse_verdict(reply.content) if reply.ending == "stop" else None
        return {
            "request_sha256": key,
            **self._identity(template),
            "template": template,
            "prompt": prompt,
            "reply": reply.content,
            "ending": reply.ending,
            "verdict": verdict or "unclear",
            "is_parsed": verdict is not None,
            "num_prompt_tokens": reply.num_prompt_tokens,
            "num_completion_tokens": reply.num_completion_tokens,
        }


def _ruling(row: Mapping[str, Any], *, is_cached: bool) -> Ruling:
    return Ruling(
        verdict=row["verdict"],
        is_parsed=row["is_parsed"],
        reply=row["reply"],
        request_sha256=row["request_sha256"],
        num_prompt_tokens=row["num_prompt_tokens"],
        num_completion_tokens=row["num_completion_tokens"],
        is_cached=is_cached,
    )


def tally(rulings: Iterable[Ruling]) -> dict[str, int]:
    """How many rulings are of each verdict; "unparsed" ones are among the "unclear"."""
    counts: dict[str, int] = dict.fromkeys((*JUDGEMENTS, "unparsed"), 0)
    for ruling in rulings:
        counts[ruling.verdict] += 1
        counts["unparsed"] += not ruling.is_parsed
    return counts


def parse_verdict(reply: str) -> Judgement | None:
    """The verdict if that is all the reply says, whatever its case, quotes and emphasis; None for anything else.

    Reasoning that ends in `</think>` is not part of the reply.
    """
    found = _VERDICT.fullmatch(reply.rpartition("</think>")[2].strip(_DRESS))
    return next((judgement for judgement in JUDGEMENTS if found and found[1].lower() == judgement), None)


def fill(case: Case) -> str:
    """The prompt for one case, its texts between fences that none of them can contain.

    The fence is a hash of the texts themselves: a response that held its own fence would have another one.
    """
    texts = {
        "question": _material(case.question),
        "ground_truth": _material(case.ground_truth),
        "prediction": _material(case.prediction[-LONGEST_PREDICTION:]),
    }
    fence = hashlib.sha256(canonical_json([case.template, texts]).encode()).hexdigest()[:16]
    values = texts | {"fence": fence}
    # In one pass: a text that contains a placeholder keeps it.
    return _PLACEHOLDER.sub(lambda found: values[found[1]], _template(case.template))


def _material(text: str) -> str:
    # Quoted in a reply, the tag would end a reasoning that is not the judge's. Lone surrogates have no UTF-8 form.
    return text.replace("</think>", "[/think]").encode(errors="replace").decode()


def template_sha256(template: Template) -> str:
    """The template's version."""
    return hashlib.sha256(_template(template).encode()).hexdigest()


@cache
def _template(template: Template) -> str:
    assets = importlib.resources.files("prism") / "assets" / "judge"
    return (assets / f"{template}.txt").read_text(encoding="utf-8")


def _open_log(path: Path) -> tuple[JsonlLog, dict[str, dict[str, Any]]]:
    """The log, cut back to its last whole line, and its rows by request. Raises DataError for a damaged line."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    rows: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            if row["verdict"] not in JUDGEMENTS:
                raise ValueError(row["verdict"])
            rows[row["request_sha256"]] = {field: row[field] for field in _FIELDS}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a judgement; restore the file or delete that line") from error
    return JsonlLog(path, {"size": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}), rows


@dataclass(frozen=True, slots=True)
class Agreement:
    """`table[rule][judge]` counts items; `kappa` is Cohen's, None where it is undefined (no item, or no variety)."""

    table: dict[str, dict[str, int]]
    count: int
    observed: float | None
    kappa: float | None


def agreement(rows: Iterable[tuple[bool | None, Judgement]]) -> Agreement:
    """How far rules and judge agree on the same items; a rule that decides nothing (None) agrees with "unclear".

    kappa = (p_o − p_e) / (1 − p_e), with p_e the agreement expected from the two margins alone.
    """
    counts = Counter((_RULE_VERDICTS[rule], judgement) for rule, judgement in rows)
    table = {rule: {judge: counts[rule, judge] for judge in JUDGEMENTS} for rule in JUDGEMENTS}
    count = counts.total()
    if not count:
        return Agreement(table, 0, None, None)
    agreed = sum(table[name][name] for name in JUDGEMENTS)
    by_chance = sum(sum(table[name].values()) * sum(table[rule][name] for rule in JUDGEMENTS) for name in JUDGEMENTS)
    kappa = None if by_chance == count**2 else (agreed * count - by_chance) / (count**2 - by_chance)
    return Agreement(table, count, agreed / count, kappa)
