"""From a model's responses to a benchmark's numbers: rules, judge, aggregates, and what each number rests on.

Responses are rows `{mode, item_id, sample, response, num_tokens, is_finished}`. Scoring them costs seconds, so it
is always done anew; the responses and the judge's replies are what is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from prism.evals.benchmarks import get_benchmark
from prism.evals.benchmarks.benchmark import PROFILES, ItemScore, Judgement, with_judgement
from prism.evals.items import Item
from prism.evals.judge import Case, Judge, Ruling, agreement, reference_answer
from prism.evals.scoring import aggregate, score_item
from prism.evals.statistics import Interval, avg_at_k_interval, pass_at_k_interval

Response = Mapping[str, Any]
JudgeScope = Literal["all", "undecided"]


@dataclass(frozen=True, slots=True)
class ScoredResponse:
    """One response under both profiles by rules alone, and what the judge said if it was asked."""

    mode: str
    is_finished: bool
    num_tokens: int | None
    scores: tuple[ItemScore, ...]
    ruling: Ruling | None = None

    def final(self, benchmark: str, scope: JudgeScope) -> tuple[ItemScore, ...]:
        """The scores with the judge's word: on everything, or where the rules gave up."""
        ruling = self.ruling
        if ruling is None:
            return self.scores
        return tuple(
            with_judgement(get_benchmark(benchmark), score, ruling.verdict)
            if scope == "all" or score.needs_judge
            else score
            for score in self.scores
        )

    def row(self, benchmark: str, scope: JudgeScope, *, is_judged: bool) -> dict[str, Any]:
        """JSON-able: the scores by rules alone and, in an evaluation with a judge, after its word."""
        return {
            "mode": self.mode,
            "is_finished": self.is_finished,
            "num_tokens": self.num_tokens,
            "rules": [asdict(score) for score in self.scores],
            "judged": [asdict(score) for score in self.final(benchmark, scope)] if is_judged else None,
        }


def score_responses(benchmark: str, items: Mapping[str, Item], responses: Iterable[Response]) -> list[ScoredResponse]:
    """Every response under every profile, by rules alone."""
    return [
        ScoredResponse(
            mode=response["mode"],
            is_finished=response["is_finished"],
            num_tokens=response["num_tokens"],
            scores=tuple(
                score_item(
                    benchmark,
                    items[response["item_id"]].row,
                    response["response"],
                    profile=profile,
                    sample=response["sample"],
                )
                for profile in PROFILES
            ),
        )
        for response in responses
    ]


def ask_judge(
    judge: Judge, scope: JudgeScope, items: Mapping[str, Item], scored: Sequence[ScoredResponse], texts: Sequence[str]
) -> list[ScoredResponse]:
    """`scored` with the rulings on those of the responses `texts` that `scope` covers."""
    asked = [
        index
        for index, response in enumerate(scored)
        if scope == "all" or any(score.needs_judge for score in response.scores)
    ]
    cases = [_case(items[scored[index].scores[0].item_id], texts[index]) for index in asked]
    rulings = dict(zip(asked, judge.judge(cases), strict=True))
    return [replace(response, ruling=rulings.get(index)) for index, response in enumerate(scored)]


def _case(item: Item, response: str) -> Case:
    prompt = item.prompt
    statement = prompt.metadata.get("statement")
    if statement:
        return Case(prompt.question, str(statement), response, "statement")
    return Case(prompt.question, reference_answer(prompt), response)


def summarize_benchmark(
    benchmark: str, scored: Sequence[ScoredResponse], *, scope: JudgeScope = "undecided", pass_at: Sequence[int] = ()
) -> dict[str, Any]:
    """Per decoding mode and profile: metrics by rules alone and with the judge, and how many answers were
    decided by whom; per mode also what no profile changes."""
    modes: dict[str, list[ScoredResponse]] = {}
    for response in scored:
        modes.setdefault(response.mode, []).append(response)
    return {mode: _mode_summary(benchmark, found, scope, pass_at) for mode, found in modes.items()}


def _mode_summary(
    benchmark: str, responses: Sequence[ScoredResponse], scope: JudgeScope, pass_at: Sequence[int]
) -> dict[str, Any]:
    lengths = [response.num_tokens for response in responses if response.num_tokens is not None]
    rules = {profile: [response.scores[index] for response in responses] for index, profile in enumerate(PROFILES)}
    final = [response.final(benchmark, scope) for response in responses]
    has_judge = any(response.ruling is not None for response in responses)
    num_samples = len({response.scores[0].sample for response in responses})
    return {
        "num_items": len({response.scores[0].item_id for response in responses}),
        "num_responses": len(responses),
        "num_truncated": sum(not response.is_finished for response in responses),
        "mean_tokens": sum(lengths) / len(lengths) if lengths else None,
        "judge": _judge_summary(responses) if has_judge else None,
        "profiles": {
            profile: {
                "rules": _metrics(benchmark, rules[profile], num_samples, pass_at),
                "judged": _metrics(benchmark, judged, num_samples, pass_at) if has_judge else None,
                "counts": _counts(judged),
                "agreement": _agreement(rules[profile], responses) if has_judge else None,
            }
            for profile, judged in ((name, [scores[i] for scores in final]) for i, name in enumerate(PROFILES))
        },
    }


def _metrics(
    benchmark: str, scores: Sequence[ItemScore], num_samples: int, pass_at: Sequence[int]
) -> dict[str, dict[str, float | int | None]]:
    found: dict[str, Interval] = dict(aggregate(benchmark, scores))
    if num_samples > 1:
        samples: dict[str, list[bool]] = {}
        for score in scores:
            samples.setdefault(score.item_id, []).append(score.is_correct is True)
        clusters = {score.item_id: score.cluster for score in scores}
        found[f"avg@{num_samples}"] = avg_at_k_interval(samples, num_samples, clusters)
        found |= {f"pass@{k}": pass_at_k_interval(samples, k, clusters) for k in pass_at}
    return {name: interval.to_dict() for name, interval in found.items()}


def _counts(scores: Sequence[ItemScore]) -> dict[str, int]:
    """Who decided: rule + judge + undecided is the number of responses; unparseable ones are counted on top."""
    by_judge = sum(score.judgement is not None for score in scores)
    undecided = sum(score.judgement is None and (score.needs_judge or score.is_correct is None) for score in scores)
    return {
        "rule": len(scores) - by_judge - undecided,
        "judge": by_judge,
        "undecided": undecided,
        "unparseable": sum(score.answer is None for score in scores),
    }


def _judge_summary(responses: Sequence[ScoredResponse]) -> dict[str, Any]:
    rulings = [response.ruling for response in responses if response.ruling is not None]
    verdicts: dict[Judgement, int] = {
        verdict: sum(ruling.verdict == verdict for ruling in rulings) for verdict in ("correct", "incorrect", "unclear")
    }
    return {"num_asked": len(rulings), "num_unparsed": sum(not ruling.is_parsed for ruling in rulings), **verdicts}


def _agreement(rules: Sequence[ItemScore], responses: Sequence[ScoredResponse]) -> dict[str, Any]:
    """Rules against judge, on what both looked at; where the rules gave up they say nothing."""
    found = agreement(
        (None if score.needs_judge else score.is_correct, response.ruling.verdict)
        for score, response in zip(rules, responses, strict=True)
        if response.ruling is not None
    )
    return asdict(found)
