"""The engine that a stage samples with, as the recipe says."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prism.config import VllmRollout
from prism.models import PromptEncoder
from prism.rollout import PolicyEngine, TransformersEngine, VllmEngine
from prism.stages.workspace import Workspace


@contextmanager
def open_engine(
    workspace: Workspace,
    policy: Any,
    encoder: PromptEncoder,
    *,
    max_response_tokens: int,
    batch_size: int | None = None,
) -> Iterator[PolicyEngine]:
    """An engine for `policy`, closed at the end; call `update_weights` before the first rollout.

    vLLM starts from the base, which has the architecture of every later policy. `batch_size` replaces the
    recipe's for the transformers engine.
    """
    settings = workspace.recipe.rollout
    if isinstance(settings, VllmRollout):
        length = workspace.recipe.max_prompt_tokens + max_response_tokens
        engine: PolicyEngine = VllmEngine(workspace.model_directory("base"), encoder, settings, max_length=length)
    else:
        engine = TransformersEngine(policy, encoder, batch_size=batch_size or settings.batch_size)
    try:
        yield engine
    finally:
        engine.close()
