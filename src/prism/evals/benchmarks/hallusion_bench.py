"""HallusionBench, the questions with an image: yes or no about figures, some of them altered.

Published are the shares of right questions (aAcc), of figures with all their questions right (fAcc) and of
questions right for all figures of their set (qAcc). In category VS, figure 0 stands for no figure at all:
there an answer that leaves the question open counts as right, and fAcc leaves it out. A figure or a question
is judged by the rows that were answered; a sample that lacks one of them is left out of it.

Profile `prism`: the first answer tag, else the whole response, counts as yes or no if it is such a word or
begins with "yes" or "no" before a space or a comma, so that "No doubt: yes" is a no. The rest goes to a judge.

Profile `strict`: the verifier reads yes and no; other statements are decided where they restate or deny the
reference answer, speak of equality, or leave the question open. The rest goes to a judge.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from prism.data.rejects import RowError
from prism.evals.benchmarks.accuracy import accuracy, item_accuracy
from prism.evals.benchmarks.answer_kinds import YesOrNo
from prism.evals.benchmarks.benchmark import Headline, ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import first_answer_tag, score_stated, without_reasoning
from prism.evals.benchmarks.rows import answer_field, id_field, one_image, optional_text, text_field
from prism.evals.statistics import Interval, share_interval
from prism.records import Prompt
from prism.rewards import verify_answer

_TRUTHS = {"1": True, "0": False}
_YES_WORDS = ("yes", "true", "correct", "right")
_NO_WORDS = ("no", "false", "incorrect", "wrong")
_HINT = "Answer yes or no."

_NO_DOUBT = re.compile(r"\b(?:no|without(?: a| any)?) (?:doubt|question)(?: about (?:it|that|this))?\b[\s,:;.]*", re.I)
_DASH = re.compile(r"\s+[-–—]+\s+")
_JUDGED_WORD = re.compile(r"(not )?(correct|right|incorrect|wrong)(?:[.,;:!](?!.*\b(?:yes|no)\b).*)?", re.I | re.DOTALL)
_OPEN = re.compile(
    r"\b(?:can(?:no| no|')t|could(?: not|n't)|unable to|(?:im|not )possible to|(?:hard|difficult) to)"
    r" (?:be )?(?:determined?|tell|told|say|said|judged?|know|known|answer(?:ed)?|decided?)\b"
    r"|\b(?:do not|don't) know\b|\b(?:unclear|uncertain|undetermined|not (?:clear|certain|sure))\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(r"\bnot\b|n't\b|\bno\b|\bneither\b", re.IGNORECASE)
_EQUALITY = re.compile(r"\b(?:same|equal(?:ly)?|identical)\b", re.IGNORECASE)
_DIFFERENCE = re.compile(
    r"\bdiffer\w*|\bunequal\b|\b(?:more|less|fewer)\b"
    r"|\b(?:larg|small|bigg|long|short|tall|wid|narrow|thick|thinn|high|low|dark|bright|light)er\b",
    re.IGNORECASE,
)
_EMPHASIS = {"indeed", "really", "actually", "clearly", "definitely", "certainly"}


class HallusionBench:
    name = "hallusion_bench"
    hub_id = "lmms-lab/HallusionBench"
    hub_configs: tuple[str, ...] = ()
    hub_split = "image"
    headline = Headline("aAcc", item_accuracy)
    limit_by: str | None = None

    def item_id(self, row: Row) -> str:
        return "/".join(self.keys(row).values())

    def cluster(self, row: Row) -> str:
        """The set: one subject, its figures and the questions about them."""
        keys = self.keys(row)
        return f"{keys['category']}/{keys['subcategory']}/{keys['set_id']}"

    def keys(self, row: Row) -> dict[str, str]:
        texts = {name: text_field(row, name) for name in ("category", "subcategory")}
        return texts | {name: id_field(row, name) for name in ("set_id", "figure_id", "question_id")}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        has_image = row.get("image") is not None or id_field(row, "visual_input") != "0"
        return Prompt(
            id=self.item_id(row),
            question=f"{text_field(row, 'question')}\n{_HINT}",
            images=(one_image(row, ("image",), image_root),) if has_image else (),
            answer="Yes" if _truth(row) else "No",
            kind=self.name,
            metadata={
                "benchmark": self.name,
                "set": self.cluster(row),
                "statement": optional_text(row, "gt_answer_details"),
                **self.keys(row),
            },
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        if profile == "prism":
            return _score_as_published(_truth(row), without_reasoning(response))
        may_stay_open = _has_no_figure(self.keys(row)["category"], self.keys(row)["figure_id"])

        def check(answer: str) -> Score:
            return _score_statement(row, answer, may_stay_open)

        return score_stated(response, check, YesOrNo(_stated_yes_or_no, lambda answer: not check(answer).needs_judge))

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        if judgement == "unclear":
            return _has_no_figure(score.keys["category"], score.keys["figure_id"])
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        shown = [score for score in scores if not _has_no_figure(score.keys["category"], score.keys["figure_id"])]
        return {
            "aAcc": accuracy(scores),
            "fAcc": _all_right(shown, "figure_id"),
            "qAcc": _all_right(scores, "question_id"),
        }


HALLUSION_BENCH = HallusionBench()


def _has_no_figure(category: str, figure_id: str) -> bool:
    return category == "VS" and figure_id == "0"


def _truth(row: Row) -> bool:
    answer = answer_field(row, "gt_answer").strip()
    if answer not in _TRUTHS:
        raise RowError("gt_answer", "is neither 1 (yes) nor 0 (no)", answer[:80])
    return _TRUTHS[answer]


def _all_right(scores: Sequence[ItemScore], key: str) -> Interval:
    """Share of the groups of a set with one value of `key` whose every question is right, by sample."""
    groups: dict[str, dict[int, dict[str, bool]]] = {}
    clusters: dict[str, str] = {}
    for score in scores:
        group = f"{score.cluster}/{score.keys[key]}"
        clusters[group] = score.cluster
        groups.setdefault(group, {}).setdefault(score.sample, {})[score.item_id] = score.is_correct is True
    return share_interval({name: _complete_samples(group) for name, group in groups.items()}, clusters)


def _complete_samples(group: dict[int, dict[str, bool]]) -> list[float]:
    items = {item for sample in group.values() for item in sample}
    return [float(all(sample.values())) for sample in group.values() if sample.keys() == items]


def _score_as_published(truth: bool, response: str) -> Score:
    tagged = first_answer_tag(response)
    answer = response if tagged is None else tagged
    text = answer.lower()
    word = text.removesuffix(".").strip()
    if word in _YES_WORDS or text.startswith(("yes ", "yes,")):
        return Score(truth, "yes", answer)
    if word in _NO_WORDS or text.startswith(("no ", "no,")):
        return Score(not truth, "no", answer)
    return Score(False, "neither_yes_nor_no", answer or None, needs_judge=True)


def _score_statement(row: Row, answer: str, may_stay_open: bool) -> Score:
    stance = _stated_yes_or_no(answer)
    if stance is not None:
        return Score(stance is _truth(row), "yes" if stance else "no", answer)
    if _OPEN.search(answer):
        return Score(may_stay_open, "left_open", answer)
    agreement = _agrees_with_reference(answer, optional_text(row, "gt_answer_details"))
    if agreement is not None:
        return Score(agreement, "restates_reference" if agreement else "denies_reference", answer)
    equality = _yes_or_no_by_equality(answer, text_field(row, "question"))
    if equality is not None:
        return Score(equality is _truth(row), "states_equality", answer)
    return Score(False, "neither_yes_nor_no", answer, needs_judge=True)


def _stated_yes_or_no(answer: str) -> bool | None:
    """Yes, no, or a word that stands for one of them; None for anything else, also for both."""
    text = _DASH.sub(", ", _NO_DOUBT.sub("", answer)).strip().strip("*_")
    word = _JUDGED_WORD.fullmatch(text)
    if word:
        return (word[2].lower() in _YES_WORDS) is not bool(word[1])
    readings = [truth for truth, word in ((True, "Yes"), (False, "No")) if verify_answer(text, word) == "correct"]
    return readings[0] if len(readings) == 1 else None


def _agrees_with_reference(answer: str, reference: str) -> bool | None:
    """True where the answer has the words of the reference, False where it has them but for a "not"."""
    said, meant = _words(answer), _words(reference)
    if not said or [word for word in said if word != "not"] != [word for word in meant if word != "not"]:
        return None
    return said.count("not") % 2 == meant.count("not") % 2


def _words(text: str) -> list[str]:
    words = re.findall(r"[^\W_]+", re.sub(r"n't\b", " not", text.lower()))
    return [word for word in words if word not in _EMPHASIS]


def _yes_or_no_by_equality(answer: str, question: str) -> bool | None:
    """ "They are the same size" says no to "Is it larger than …?" and yes to "Are they of equal size?"."""
    if not _EQUALITY.search(answer) or _DIFFERENCE.search(answer) or _NEGATION.search(question):
        return None
    is_equal = not _NEGATION.search(answer)
    if _EQUALITY.search(question):
        return None if _DIFFERENCE.search(question) else is_equal
    return False if is_equal and _DIFFERENCE.search(question) else None
