"""The kinds of answers, and how a text without tags states one of each: an option, yes or no, a value, words."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prism.evals.benchmarks.statements import AnswerKind, Sentence
from prism.rewards.choices import LETTERS, SEVERAL, compare_choice, read_choice
from prism.rewards.comparison import compare, compare_statement
from prism.rewards.formulas import is_formula
from prism.rewards.moments import read_date, read_time
from prism.rewards.normalization import clean, strip_phrases
from prism.rewards.number_words import NUMBER_WORDS
from prism.rewards.quantities import read_quantity
from prism.rewards.structure import Value, read_value
from prism.rewards.yes_no import meaning_of, read_yes_no

_MAX_BARE_WORDS = 5
_MAX_MORE_WORDS = 2
"""Words behind an option's text that may be a unit or a noun: `30 square units`."""
_LONE_LETTER = re.compile(r"(?:(?i:option|choice) )?[(\[{]*([A-Za-z])[)\]}.:]*")
_LETTER = r"(?:(?:option|choice|letter|answer) )?[(\[*\"]*(?-i:[A-J])\b[)\]*\"]*"
_IS_ALL = r"(?=\W*$|[.:;)]|,(?! ?\W?[A-J]\b)| ?\(| because| since| as the (?:\w+ )?(?:answer|option|choice))"
_ANNOUNCEMENTS_OF_OPTION = (
    # "the correct option for this figure is …", "the choice that fits is …", "Option: …"
    r"\b(?:correct|right|best|final|my) (?:option|choice|letter)\b[^.]{0,40}?(?:\b(?:is|must be|should be)\b|[:=])",
    rf"(?:^|\bthe )(?:option|choice)\b(?! ?{_LETTER})[^.]{{0,60}}?(?:\b(?:is|must be|should be)\b|:)",
    rf"(?:(?<!\bto )|(?<=\bhave to )|(?<=\bneed to ))\b(?:choose|select|pick|go with|opt for) {_LETTER}{_IS_ALL}",
    r"\b(?:corresponds?|corresponding|match(?:es|ing)?|equals?|leads?|points?|is) (?:to |with )?"
    r"(?:option|choice|answer) [(\[*\"]*(?-i:[A-J])\b",
    # "Option C (30) is the correct one", "C is correct"
    rf"(?<!\w){_LETTER}[.:]?(?: \([^()]{{0,40}}\))? (?:is|must be) (?:(?:clearly|therefore|thus|then|indeed) )?"
    r"(?:(?:the )?(?:most |only )?(?:correct|right|best) (?:answer|option|choice|one|match)|the answer|correct|right)"
    r"(?=\W*$|[,;.]| because| since| as )",
    # "So C.", "therefore, it must be option C", "…, so C", "it's C"
    r"^(?:so|thus|hence|therefore|but|no|wait|actually|instead)\b[,:]? ?(?:(?:it|this|that)(?:'s| is| must be) )?"
    rf"{_LETTER}(?=\W*$|[.:)]| \(| because| since| as the )",
    rf"[,;] (?:so|thus|hence|therefore) {_LETTER}\W*$",
    r"(?:^|[,;:] |\b(?:so|thus|hence|therefore|but|and|then|no|hmm),? )(?:it|that|this)(?:'s| is| must be| should be) "
    rf"{_LETTER}\W*$",
)
_ANNOUNCES_OPTION = re.compile("|".join(_ANNOUNCEMENTS_OF_OPTION), re.IGNORECASE)
_CHOOSES_TEXT = re.compile(
    rf"\b(?:i|we)(?:'d| would| will|'ll)? (?:choose|select|pick|go with) (?!{_LETTER})", re.IGNORECASE
)
_DISMISSES = re.compile(
    r"\b(?:wrong|incorrect|false|too|cannot|impossible|invalid|fails?|eliminat\w+|exclud\w+|reject\w*|ruled? out"
    r"|discard\w*|only if|another|tempting|distractor|mistake|(?:is|are|does|do|was|would|can|could) not)\b|n't\b",
    re.IGNORECASE,
)
_SUPPOSES = re.compile(r"\W*(?:if|suppose|assuming|unless|one|you|some|someone|many|people|students?)\b", re.IGNORECASE)
_LABELLED = re.compile(r"(?:(?i:option|choice|answer) )?[(\[]?([A-J])[)\]]? ?[.:)-] ?(\S.*)")
_REASON = re.compile(r"\W*(?:because|since|as)\b")
_YES_OR_NO = re.compile(r"\W*(?:yes|no|yep|yeah|nope|true|false)\b", re.IGNORECASE)
_VALUE_MARK = re.compile(rf"[0-9\\√π∞²³½⅓¼¾]|\b(?i:{'|'.join(sorted(NUMBER_WORDS - {'one'}))})\b")
_STATES = re.compile(r".*\b(?:is|are|equals|has|have|contains|there are)\s+(.+)", re.IGNORECASE)
_STATES_NOT = re.compile(
    r"\b(?:not|never|neither|than|least|most|between|or|if|either|cannot|no)\b|n't\b", re.IGNORECASE
)
_CONCLUDES = re.compile(r"\W*(?:so|thus|hence|therefore|finally|in total|altogether)\b", re.IGNORECASE)
_ASIDE = re.compile(
    r"\W*(?:(?:we|you|i) can (?:check|verify)|(?:let us|let's|to) (?:check|verify)|check|verif\w+|explanation|reason\w*"
    r"|this (?:follows|is because)|(?:since|because)\b[^,]*$)",
    re.IGNORECASE,
)


def kind_of(truths: Sequence[str], choices: Sequence[str] | None) -> AnswerKind:
    """The kind of the right answers `truths`, with the texts of the options where there are any."""
    cleaned = [clean(truth) for truth in truths]
    if choices or all(len(truth) == 1 and truth in LETTERS for truth in cleaned):
        return Options(tuple(map(clean, choices or ())))
    if all(meaning_of(truth) is not None for truth in cleaned):
        return YesOrNo(_stance)
    return Values() if any(map(_VALUE_MARK.search, cleaned)) else Words()


class AnyAnswer:
    """Nothing is known of the answer: every announcement and the last sentence are taken for one."""

    credits_doubtful = True

    def announces(self, sentence: str) -> None:
        return None

    def names(self, statement: str) -> bool:
        return True

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        return [sentence.text for sentence in sentences[-1:]]


@dataclass(frozen=True, slots=True)
class Options:
    """A letter, a letter with the option's text, or the text, of cleaned `choices`; empty where only letters count.

    What is said of an option ("Option A: 10 is too small") is no answer.
    """

    choices: tuple[str, ...]
    credits_doubtful = False

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.choices)] if self.choices else LETTERS

    def announces(self, sentence: str) -> re.Match[str] | None:
        chooses = _CHOOSES_TEXT.search(sentence)
        return _ANNOUNCES_OPTION.search(sentence) or (chooses if chooses and self.names(sentence) else None)

    def names(self, statement: str) -> bool:
        text = clean(statement)
        return read_choice(text, self.letters) is not None or self._is_text_of_one(text)

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        """Options by themselves, without those in a list of several; and the last sentence, which beside a letter
        counts only if it has one."""
        texts = [sentence.text for sentence in sentences]
        keys = [self._bare(clean(text)) for text in texts]
        around = ["", *keys, ""]
        is_listed = [bool({around[i], around[i + 2]} - {"", key}) for i, key in enumerate(keys)]
        bare = [text for text, key, listed in zip(texts, keys, is_listed, strict=True) if key and not listed]
        if keys and keys[-1]:
            return bare
        first = [text for text, is_line in sentences[:1] if is_line and not bare and self._is_text_alone(clean(text))]
        last = [text for text in texts[len(first) :][-1:] if self._concludes(clean(text), is_letter_due=bool(bare))]
        return [*bare, *first, *last]

    def _bare(self, text: str) -> str:
        """The letter of the option that is all a sentence holds."""
        lone, labelled = _LONE_LETTER.fullmatch(text), _LABELLED.fullmatch(text)
        if lone:
            return lone[1].upper() if lone[1].upper() in self.letters else ""
        return labelled[1] if labelled and self._is_text_of(labelled[1], labelled[2]) else ""

    def _is_text_alone(self, text: str) -> bool:
        return any(compare(strip_phrases(text), choice).outcome is True for choice in self.choices)

    def _concludes(self, text: str, *, is_letter_due: bool) -> bool:
        if _DISMISSES.search(text):
            return False
        choice, labelled = read_choice(text, self.letters), _LABELLED.fullmatch(text)
        if choice is None:
            return not is_letter_due and not labelled and self._is_text_of_one(text)
        if choice == SEVERAL or _SUPPOSES.match(text):
            return False
        return not labelled or self._is_text_of(labelled[1], labelled[2])

    def _is_text_of(self, letter: str, text: str) -> bool:
        """Whether a text is that of the option, with no more than a reason behind it; any is where none is known."""
        if letter not in self.letters:
            return False
        if not self.choices:
            return True
        option = self.choices[LETTERS.index(letter)]
        rest = text[len(option) :] if text.casefold().startswith(option.casefold()) else text
        is_short = len(text.split()) <= len(option.split()) + _MAX_MORE_WORDS
        return _REASON.match(rest) is not None or (is_short and compare_statement(text, option).outcome is not False)

    def _is_text_of_one(self, text: str) -> bool:
        return any(compare_choice(text, letter, self.choices or None) for letter in self.letters)


@dataclass(frozen=True, slots=True)
class YesOrNo:
    """`stance` reads a statement as yes or no; `decides` says whether the rules can decide a statement at all."""

    stance: Callable[[str], bool | None]
    decides: Callable[[str], bool] | None = None
    credits_doubtful = True

    def announces(self, sentence: str) -> None:
        return None

    def names(self, statement: str) -> bool:
        return self.stance(statement) is not None

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        """The sentences that begin with yes or no; where there are none, the last one."""
        bare = [text for text, _ in sentences if _YES_OR_NO.match(text) and self.names(text)]
        return bare or [text for text, _ in sentences[-1:] if (self.decides or self.names)(text)]


class Values:
    """A number, a formula, a list of such."""

    credits_doubtful = True

    def announces(self, sentence: str) -> None:
        return None

    def names(self, statement: str) -> bool:
        return _VALUE_MARK.search(statement) is not None

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        """A value alone on the first line, and the last sentence with a value that is no mere check or reason; that
        one alone where the first line may be a step on the way to it."""
        first = [text for text, is_line in sentences[:1] if is_line and _is_value(strip_phrases(clean(text)))]
        for text, _ in reversed(sentences[len(first) :]):
            if _ASIDE.match(text) or not _VALUE_MARK.search(text):
                continue
            if first and "=" in first[0] and _CONCLUDES.match(text):
                first = []
            return [*first, text] if first or _states_value(clean(text)) else []
        return first


class Words(AnyAnswer):
    """A word or a phrase, which no rule can tell from any other sentence."""

    def stated(self, sentences: Sequence[Sentence]) -> list[str]:
        """A few words on the first line with the last sentence; nothing where there is no such line."""
        found = [text for text, is_line in sentences[:1] if is_line and len(text.split()) <= _MAX_BARE_WORDS]
        return list(dict.fromkeys([*found, sentences[-1].text])) if found else []


ANY_ANSWER = AnyAnswer()


def _stance(statement: str) -> bool | None:
    return read_yes_no(strip_phrases(clean(statement)))


def _states_value(text: str) -> bool:
    if _is_value(strip_phrases(text)):
        return True
    stated = None if _STATES_NOT.search(text) else _STATES.fullmatch(text)
    return stated is not None and _is_value(stated[1])


def _is_value(text: str) -> bool:
    return _VALUE_MARK.search(text) is not None and all(map(_is_single_value, _leaves(read_value(text))))


def _is_single_value(text: str) -> bool:
    return any((read_quantity(text), read_time(text), read_date(text), is_formula(text)))


def _leaves(value: Value) -> Iterator[str]:
    for item in value.items:
        yield from _leaves(item)
    if not value.items:
        yield value.text
