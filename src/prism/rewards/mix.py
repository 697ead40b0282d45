"""The reward of reinforcement learning with verifiable rewards: accuracy and format, weighted."""

import re
from dataclasses import dataclass

from prism.records import Prompt, Response
from prism.rewards.answer import verify_answer
from prism.rewards.normalization import last_boxed
from prism.rewards.verdict import Rule, Verdict


@dataclass(frozen=True, slots=True)
class Reward:
    """`accuracy` and `format` are 0 or 1 before weighting.

    An unverifiable answer earns accuracy 0 as well; `verdict` tells it from a wrong one, so that a
    trainer can count or leave out such samples.
    """

    total: float
    accuracy: float
    format: float
    verdict: Verdict

    @property
    def is_unverifiable(self) -> bool:
        return self.verdict.is_unverifiable


_ANSWER_BLOCK = re.compile(r"<answer>((?:[^<]|<(?!/?answer>))*)</answer>")
_OPEN_ANSWER = re.compile(r"<answer>((?:[^<]|<(?!/?answer>))*)\Z")


def mix_reward(
    response: Response, prompt: Prompt, *, accuracy_weight: float = 0.8, format_weight: float = 0.2
) -> Reward:
    """The paper's RLVR reward, 0.8 · accuracy + 0.2 · format."""
    verdict = verdict_of(response, prompt)
    accuracy, is_formatted = float(verdict.is_correct), float(response.is_valid)
    total = accuracy_weight * accuracy + format_weight * is_formatted
    return Reward(total=total, accuracy=accuracy, format=is_formatted, verdict=verdict)


def verdict_of(response: Response, prompt: Prompt) -> Verdict:
    """An invalid response gives no answer and is wrong, whatever its text contains."""
    if not response.is_valid or response.answer is None:
        return Verdict("wrong", Rule.FORMAT)
    return verify_answer(response.answer, prompt.answer, equivalents=prompt.equivalents, choices=prompt.choices or None)


def answer_of_free_text(text: str) -> str:
    r"""The answer in a text without the format, for evaluating models that never learned it.

    In this order: the last answer block (also one that was cut off), the last `\boxed{…}`, the last line.
    """
    blocks = _ANSWER_BLOCK.findall(text)
    if blocks:
        return blocks[-1].strip()
    opened = _OPEN_ANSWER.search(text)
    if opened:
        return opened[1].strip()
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed.strip()
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
