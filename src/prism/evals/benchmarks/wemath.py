"""We-Math testmini: problems of two or three steps, each asked as a whole and step by step.

The whole and its steps are a family, and the published numbers class families by what was right:

- insufficient knowledge (IK): some step and the whole wrong
- inadequate generalization (IG): every step right, the whole wrong
- complete mastery (CM): the whole right, and every step (strict) or some step (loose)
- rote memorization (RM): the whole right, and not mastered

A family scores 1 for CM, 1/2 for IG and 0 for the rest, which sums to the published
(N − IG/2 − RM − IK)/N; the rate of RM is its share of the families whose whole was right. N is the number
of families that were answered in full, not the 525 of the complete set. A family with a part missing, as
after a limit on the items, is in none of these numbers; `incomplete_families` is the share of such.

Profile `prism`: the first answer tag, else the last box, read by the paper's rule for option letters;
whatever comes out wrong goes to a judge. Profile `strict`: the verifier, with the options.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from prism.data.rejects import RowError
from prism.evals.benchmarks.accuracy import accuracy, accuracy_by
from prism.evals.benchmarks.benchmark import Headline, ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_verified, without_reasoning
from prism.evals.benchmarks.option_letters import wemath_letter
from prism.evals.benchmarks.rows import LETTERS, id_field, letter_field, lettered, one_image, text_field
from prism.evals.statistics import NOTHING_MEASURED, Interval, share_interval
from prism.records import Prompt
from prism.rewards import answer_of_free_text

_KEY = re.compile(r"([2-9])steps_([1-9]|multi)")
_WHOLE = "multi"
_OPTION = re.compile(r"\(?([A-J])\)?\s*[.:]\s*(.*\S)", re.DOTALL)


def _strict_scores(scores: Sequence[ItemScore]) -> dict[str, float]:
    families, _ = _families(scores)
    return {name: fmean(family.score("strict") for family in samples) for name, samples in families.items()}


class WeMath:
    name = "wemath"
    hub_id = "We-Math/We-Math"
    hub_configs: tuple[str, ...] = ()
    hub_split = "testmini"
    headline = Headline("score/strict", _strict_scores)
    limit_by: str | None = None

    def item_id(self, row: Row) -> str:
        return f"{id_field(row, 'ID')}/{text_field(row, 'key')}"

    def cluster(self, row: Row) -> str:
        """The family: a problem and its steps."""
        return f"{_parts_of_key(row)[0]}steps/{id_field(row, 'ID')}"

    def keys(self, row: Row) -> dict[str, str]:
        """`steps` is how many this question takes by itself, `family_steps` how many its family has."""
        steps, part = _parts_of_key(row)
        return {"family_steps": steps, "part": part, "steps": steps if part == _WHOLE else "1"}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        choices = _choices(row)
        options = lettered(choices) if choices else text_field(row, "option")
        hint = "Give the letter of the right option as the final answer."
        return Prompt(
            id=self.item_id(row),
            question="\n".join([text_field(row, "question"), options, hint]),
            images=(one_image(row, ("image_path", "image"), image_root),),
            answer=letter_field(row, "answer", len(LETTERS)),
            kind=self.name,
            choices=choices,
            metadata={"benchmark": self.name, "family": self.cluster(row), **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        truth = letter_field(row, "answer", len(LETTERS))
        if profile == "prism":
            return _score_as_published(truth, without_reasoning(response))
        return score_verified(response, truth, choices=_choices(row) or None)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        families, num_families = _families(scores)

        def mean(value: Callable[[_Family], float]) -> Interval:
            return share_interval({name: [value(family) for family in tries] for name, tries in families.items()})

        metrics: dict[str, Interval] = {}
        for form in ("strict", "loose"):
            metrics[f"score/{form}"] = mean(lambda family, form=form: family.score(form))
            metrics[f"complete_mastery/{form}"] = mean(lambda family, form=form: family.is_mastered(form))
            metrics[f"rote_memorization/{form}"] = _rote_share(families, form)
        metrics["inadequate_generalization"] = mean(lambda family: family.is_inadequate)
        metrics["insufficient_knowledge"] = mean(lambda family: family.is_insufficient)
        missing = num_families - len(families)
        share = Interval(missing / num_families, None, None, num_families) if num_families else NOTHING_MEASURED
        metrics["incomplete_families"] = share
        return metrics | {"accuracy": accuracy(scores), **accuracy_by(scores, "steps")}


WEMATH = WeMath()


@dataclass(frozen=True, slots=True)
class _Family:
    """What one sample of each of a family's parts got right."""

    steps: tuple[bool, ...]
    whole: bool

    @property
    def is_inadequate(self) -> bool:
        return all(self.steps) and not self.whole

    @property
    def is_insufficient(self) -> bool:
        return not all(self.steps) and not self.whole

    def is_mastered(self, form: str) -> bool:
        return self.whole and (all(self.steps) if form == "strict" else any(self.steps))

    def score(self, form: str) -> float:
        return 0.5 if self.is_inadequate else float(self.is_mastered(form))


def _families(scores: Sequence[ItemScore]) -> tuple[dict[str, list[_Family]], int]:
    """Each family's samples that have all parts, without families that have none, and the number of all families."""
    right: dict[str, dict[int, dict[str, bool]]] = {}
    steps: dict[str, int] = {}
    for score in scores:
        sample = right.setdefault(score.cluster, {}).setdefault(score.sample, {})
        sample[score.keys["part"]] = score.is_correct is True
        steps[score.cluster] = int(score.keys["family_steps"])
    families: dict[str, list[_Family]] = {}
    for name, samples in right.items():
        parts = [str(step) for step in range(1, steps[name] + 1)]
        for sample in samples.values():
            if sample.keys() >= {*parts, _WHOLE}:
                family = _Family(tuple(sample[part] for part in parts), sample[_WHOLE])
                families.setdefault(name, []).append(family)
    return families, len(right)


def _rote_share(families: Mapping[str, Sequence[_Family]], form: str) -> Interval:
    """Of the families whose whole was right; nothing where there are none."""
    solved = {name: [family for family in samples if family.whole] for name, samples in families.items()}
    return share_interval(
        {name: [float(not family.is_mastered(form)) for family in samples] for name, samples in solved.items()}
    )


def _parts_of_key(row: Row) -> tuple[str, str]:
    """The number of the family's steps, and which of them the question asks for."""
    text = text_field(row, "key")
    key = _KEY.fullmatch(text)
    if not key or (key[2] != _WHOLE and key[2] > key[1]):
        raise RowError("key", "names no step of a family, such as 2steps_1 or 3steps_multi", text[:80])
    return key[1], key[2]


def _choices(row: Row) -> tuple[str, ...]:
    """The options' texts; none where they cannot be told apart, and then the letter alone decides."""
    parts = [_OPTION.fullmatch(part.strip()) for part in text_field(row, "option").split(";") if part.strip()]
    options = [(part[1], part[2]) for part in parts if part]
    letters = "".join(letter for letter, _ in options)
    is_complete = len(options) == len(parts) > 1 and letters == LETTERS[: len(letters)]
    is_answerable = letter_field(row, "answer", len(LETTERS)) in letters
    return tuple(text for _, text in options) if is_complete and is_answerable else ()


def _score_as_published(truth: str, response: str) -> Score:
    answer = first_answer_tag(response)
    if answer is None:
        answer = answer_of_free_text(response) if "\\boxed{" in response else ""
    letter = wemath_letter(answer.removesuffix("."))
    rule = "option_letter" if letter else "no_option_letter"
    return Score(letter == truth, rule, answer or None, needs_judge=letter != truth)
