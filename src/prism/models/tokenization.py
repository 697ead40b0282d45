"""Text to tokens such that text can never become a control token.

Hugging Face tokenizers turn "<|im_end|>" inside a question into the real end token, which lets a data
row end its own turn or add an image. Here control tokens come from the chat template alone.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from prism.errors import ModelError
from prism.rewards import token_span

_CONTROL_SHAPE = re.compile(r"<\|[^|]*\|>")


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Added tokens that steer the model: those marked special, and unmarked ones of the form <|…|>.

    Other added tokens (Qwen's `<think>`, say) are words a response may well contain.
    """
    return {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special or _CONTROL_SHAPE.fullmatch(token.content)
    }


class TextTokenizer:
    """Encodes plain text and rendered chat templates with the vocabulary of `tokenizer`.

    Raises ModelError for a tokenizer without the `tokenizers` backend, which has no character offsets.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if not tokenizer.is_fast:
            raise ModelError(f"{type(tokenizer).__name__} has no tokenizer.json backend: convert it to one first")
        self.control_ids = control_tokens(tokenizer)
        self._plain = _without_control_tokens(tokenizer, self.control_ids)
        longest_first = sorted(self.control_ids, key=len, reverse=True)
        self._control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def encode_text(self, text: str) -> list[int]:
        return self._plain.encode(text, add_special_tokens=False).ids

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end in characters of every token of `encode_text(text)`."""
        return self._plain.encode(text, add_special_tokens=False).offsets

    def encode_template(self, pieces: Sequence[tuple[str, bool]]) -> list[int]:
        """Tokens of the pieces' concatenation, with control tokens recognised only where the flag is true.

        Text on both sides of a piece boundary is tokenised as one run, so for text without control
        tokens the result is that of the whole string.
        """
        token_ids: list[int] = []
        run = ""
        for text, is_template in pieces:
            cursor = 0
            for match in self._control_pattern.finditer(text) if is_template else ():
                token_ids += self.encode_text(run + text[cursor : match.start()])
                token_ids.append(self.control_ids[match.group()])
                run, cursor = "", match.end()
            run += text[cursor:]
        return token_ids + self.encode_text(run)


def _without_control_tokens(tokenizer: PreTrainedTokenizerBase, control_ids: dict[str, int]) -> Tokenizer:
    """A copy of the backend that reads control tokens as the characters they are written in."""
    backend: Any = tokenizer.backend_tokenizer
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] in control_ids
    state["truncation"] = state["padding"] = None
    plain = Tokenizer.from_str(json.dumps(state))
    plain.encode_special_tokens = True
    return plain


def span_mask(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> list[bool]:
    """For each token, whether any of its characters lies in one of the half-open `spans`, in any order."""
    mask = [False] * len(offsets)
    for span in spans:
        for index in range(*token_span(span, offsets)):
            mask[index] = offsets[index][0] < offsets[index][1]
    return mask
