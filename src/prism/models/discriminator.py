"""The discriminator: a Qwen3-VL body with one scalar head, and what it is given to read."""

from os import PathLike
from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, Qwen3VLModel, Qwen3VLMoeModel

from prism.errors import ModelError
from prism.models.checkpoint import LOAD_ERRORS, Dtype, check_loading_report, first_line, read_config
from prism.models.processor import PromptEncoder
from prism.models.released import read_released
from prism.packing.tree import Branch
from prism.records import Response

HEAD_FILE = "head.safetensors"
HEAD_KEY = "head.weight"
BranchKind = Literal["perception", "reasoning"]


class Discriminator(nn.Module):
    """D(x, y): `model` is the body (mixture of experts, or dense for the ablation), `head` maps the
    hidden state of a branch's end token to its score.

    The head starts at zero: a fresh discriminator prefers nothing, its Bradley-Terry loss is log 2,
    and the first step moves the head alone.
    """

    def __init__(self, model: PreTrainedModel, *, score_limit: float | None = 10.0) -> None:
        super().__init__()
        if not isinstance(model, Qwen3VLMoeModel | Qwen3VLModel):
            raise ModelError(f"a discriminator's body is a Qwen3VLMoeModel or Qwen3VLModel, not {type(model).__name__}")
        self.model = model
        hidden_size = model.config.get_text_config().hidden_size
        self.head = nn.Linear(hidden_size, 1, bias=False, dtype=model.dtype, device=model.device)
        nn.init.zeros_(self.head.weight)
        self.score_limit = score_limit

    def score(self, hidden: Float[Tensor, "branches hidden"]) -> Float[Tensor, "branches"]:
        """Scores within ±`score_limit`, as in the released code; beyond it they have no gradient."""
        scores = self.head(hidden.to(self.head.weight.dtype)).squeeze(-1)
        return scores if self.score_limit is None else scores.clamp(-self.score_limit, self.score_limit)

    def save_pretrained(self, directory: str | PathLike[str], *, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the body as a plain Hugging Face checkpoint and the head beside it.

        `state_dict` replaces the module's own, for sharded weights that the caller has gathered.
        """
        state = self.state_dict() if state_dict is None else state_dict
        body = {name.removeprefix("model."): weight for name, weight in state.items() if name.startswith("model.")}
        self.model.save_pretrained(directory, state_dict=body)
        save_file({HEAD_KEY: state[HEAD_KEY].detach().cpu().contiguous()}, Path(directory) / HEAD_FILE)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | PathLike[str],
        *,
        dtype: Dtype = "float32",
        device: str = "cpu",
        score_limit: float | None = 10.0,
    ) -> Self:
        """Reads what `save_pretrained` wrote, or a released discriminator. ModelError for anything else."""
        config = read_config(directory)
        head_file = Path(directory) / HEAD_FILE
        if head_file.is_file():
            body, head_weight = _read_body(directory, dtype), _read_head(head_file)
        else:
            state, head_weight = read_released(directory, config)
            body = AutoModel.from_config(config, dtype=getattr(torch, dtype), attn_implementation="sdpa")
            _load_exactly(directory, body, state)
        discriminator = cls(body, score_limit=score_limit).eval()
        if head_weight.shape != discriminator.head.weight.shape:
            raise ModelError(f"{directory}: head of shape {tuple(head_weight.shape)} does not fit the body")
        with torch.no_grad():
            discriminator.head.weight.copy_(head_weight)
        return discriminator.to(device)


def _read_body(directory: str | PathLike[str], dtype: Dtype) -> PreTrainedModel:
    try:
        body, report = AutoModel.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"{directory}: cannot load weights: {first_line(error)}") from error
    check_loading_report(directory, report)
    return body


def _read_head(file: Path) -> Tensor:
    try:
        return load_file(file)[HEAD_KEY]
    except LOAD_ERRORS as error:
        raise ModelError(f"{file}: no readable {HEAD_KEY}: {first_line(error)}") from error


def _load_exactly(directory: str | PathLike[str], body: PreTrainedModel, state: dict[str, Tensor]) -> None:
    try:
        report = body.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise ModelError(f"{directory}: weights do not fit config.json: {first_line(error)}") from error
    check_loading_report(directory, {"missing_keys": report.missing_keys, "unexpected_keys": report.unexpected_keys})


def response_branch(encoder: PromptEncoder, response: Response, kind: BranchKind) -> Branch:
    """What the discriminator reads of a response, for teacher and rollout, in warm-up and alignment alike.

    Perception: the description. Reasoning: the reasoning, then the answer in its tags. Both are
    tokenised anew from the stripped text and end with the one end token on which the score is read,
    so that neither tokens at the edges nor the way it was sampled tell who wrote it. Nothing is cut.
    Raises ValueError for an invalid response, which has no parts.
    """
    if not response.is_valid:
        raise ValueError(f"an invalid response ({response.reason}) has no branches: filter on is_valid")
    texts = {
        "perception": str(response.caption),
        "reasoning": f"{response.think}\n<answer>{response.answer}</answer>",
    }
    return Branch.of(encoder.completion_ids(texts[kind]))
