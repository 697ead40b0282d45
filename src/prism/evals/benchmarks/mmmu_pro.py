"""MMMU-Pro: 1730 questions with up to ten options, in two forms that share their questions.

In the standard form the question is text with images; in the vision form, whose rows have no question text,
question and options are one image. The published number is the mean of the two forms' accuracies.

Profile `prism`: MMMU's rule in the standard form. In the vision form only the bare letter is right, because
the rule is not applied to rows without a question. Profile `strict`: the verifier, with the options.
"""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from prism.evals.benchmarks.accuracy import accuracy, accuracy_by
from prism.evals.benchmarks.benchmark import Headline, ItemScore, Judgement, Profile, Row, Score
from prism.evals.benchmarks.extraction import score_verified
from prism.evals.benchmarks.mmmu import (
    LETTER_HINT,
    place_images,
    published_answer,
    score_published_choice,
    subject_keys,
)
from prism.evals.benchmarks.rows import (
    id_field,
    letter_field,
    lettered,
    one_image,
    optional_text,
    strings_field,
    text_field,
)
from prism.evals.statistics import NOTHING_MEASURED, Interval, macro_average, share_interval
from prism.records import ImageSource, Prompt

FORMS = ("standard", "vision")
_VISION_HINT = f"The question and its options are in the image. {LETTER_HINT}"


def _mean_by_question(scores: Sequence[ItemScore]) -> dict[str, float]:
    """Of the questions of which both forms were asked, as all are in the complete set."""
    shares = [_share_by_question([score for score in scores if score.keys["form"] == form]) for form in FORMS]
    return {question: fmean(share[question] for share in shares) for question in shares[0] if question in shares[1]}


class MmmuPro:
    name = "mmmu_pro"
    hub_id = "MMMU/MMMU_Pro"
    hub_configs: tuple[str, ...] = ("standard (10 options)", "vision")
    """One for each form; the benchmark is both of them."""
    hub_split = "test"
    headline = Headline("accuracy", _mean_by_question)
    limit_by: str | None = "form"

    def item_id(self, row: Row) -> str:
        """The forms number their questions alike, so the form is part of it."""
        return f"{_form(row)}/{id_field(row, 'id')}"

    def cluster(self, row: Row) -> str:
        """The question, in whichever form."""
        return id_field(row, "id")

    def keys(self, row: Row) -> dict[str, str]:
        return {"form": _form(row), **subject_keys(text_field(row, "subject"))}

    def prompt(self, row: Row, image_root: Path) -> Prompt:
        options = strings_field(row, "options")
        question, images = _question_and_images(row, options, image_root)
        return Prompt(
            id=self.item_id(row),
            question=question,
            images=images,
            answer=letter_field(row, "answer", len(options)),
            kind=self.name,
            choices=options,
            metadata={"benchmark": self.name, "question": self.cluster(row), **self.keys(row)},
        )

    def score(self, row: Row, response: str, profile: Profile) -> Score:
        options = strings_field(row, "options")
        truth = letter_field(row, "answer", len(options))
        if profile == "strict":
            return score_verified(response, truth, choices=options)
        answer = published_answer(response)
        if _form(row) == "standard":
            return score_published_choice(answer, truth, options)
        return Score(answer == truth, "bare_letter", answer or None)

    def judged(self, score: ItemScore, judgement: Judgement) -> bool:
        return judgement == "correct"

    def metrics(self, scores: Sequence[ItemScore]) -> dict[str, Interval]:
        forms = {form: [score for score in scores if score.keys["form"] == form] for form in FORMS}
        return {
            "accuracy": _mean_of_forms(list(forms.values())),
            **{f"accuracy/{form}": accuracy(of_form) for form, of_form in forms.items()},
            **accuracy_by(scores, "discipline"),
            **accuracy_by(scores, "subject"),
        }


MMMU_PRO = MmmuPro()


def _form(row: Row) -> str:
    return "standard" if optional_text(row, "question").strip() else "vision"


def _question_and_images(row: Row, options: Sequence[str], image_root: Path) -> tuple[str, tuple[ImageSource, ...]]:
    if _form(row) == "vision":
        return _VISION_HINT, (one_image(row, ("image",), image_root),)
    return place_images("\n".join([text_field(row, "question"), lettered(options), LETTER_HINT]), row, image_root)


def _mean_of_forms(forms: Sequence[Sequence[ItemScore]]) -> Interval:
    """Unknown while a form is missing. Over the questions where both forms have the same ones, since a
    question is as hard in one form as in the other; else as if the forms were independent."""
    if not all(forms):
        return NOTHING_MEASURED
    shares = [_share_by_question(form) for form in forms]
    if shares[0].keys() == shares[1].keys():
        return share_interval({question: [share[question] for share in shares] for question in shares[0]})
    return macro_average([accuracy(form) for form in forms])


def _share_by_question(scores: Sequence[ItemScore]) -> dict[str, float]:
    samples: dict[str, list[float]] = {}
    for score in scores:
        samples.setdefault(score.cluster, []).append(float(score.is_correct is True))
    return {question: fmean(values) for question, values in samples.items()}
