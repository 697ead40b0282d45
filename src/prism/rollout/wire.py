"""What a trainer and a rollout server write to each other: JSON, and weights as safetensors, one after the other.

Nothing that is read can run code. Images travel as the encoded files they are.
"""

import base64
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from prism.data.images import read_bytes
from prism.errors import ConfigError, DataError, NumericsError, PrismError, RolloutError
from prism.records import ImageSource, Prompt, Rollout

_LENGTH_BYTES = 8
_ERRORS = {error.__name__: error for error in (ConfigError, DataError, NumericsError, RolloutError)}


def prompt_table(prompt: Prompt) -> dict[str, Any]:
    """What a model reads of a prompt. Raises DataError for an image that cannot be read."""
    images = [base64.b64encode(read_bytes(image)).decode("ascii") for image in prompt.images]
    return {"id": prompt.id, "question": prompt.question, "system": prompt.system, "images": images}


def read_prompt(table: Mapping[str, Any]) -> Prompt:
    images = tuple(ImageSource(data=base64.b64decode(image)) for image in table["images"])
    return Prompt(table["id"], table["question"], images, system=table["system"])


def rollout_table(rollout: Rollout) -> dict[str, Any]:
    return {
        "sample": rollout.sample,
        "token_ids": rollout.token_ids,
        "text": rollout.text,
        "is_finished": rollout.is_finished,
        "logprobs": rollout.logprobs,
    }


def read_rollout(table: Mapping[str, Any]) -> Rollout:
    logprobs = table["logprobs"]
    return Rollout(
        table["sample"],
        tuple(table["token_ids"]),
        table["text"],
        table["is_finished"],
        logprobs=None if logprobs is None else tuple(logprobs),
    )


def weight_message(name: str, tensor: Tensor) -> bytes:
    """One weight with the length of what follows before it; `END_OF_WEIGHTS` comes after the last."""
    content = save({name: tensor.detach().contiguous().cpu()})
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


END_OF_WEIGHTS = bytes(_LENGTH_BYTES)


def read_weights(read: Callable[[int], bytes]) -> Iterator[tuple[str, Tensor]]:
    """The weights of such messages; `read` gives the next so many bytes."""
    while length := int.from_bytes(read(_LENGTH_BYTES), "big"):
        yield from load(read(length)).items()


def error_table(error: PrismError) -> dict[str, str]:
    return {"error": type(error).__name__, "message": str(error)}


def read_error(table: Mapping[str, Any], where: str) -> PrismError:
    return _ERRORS.get(str(table.get("error")), RolloutError)(f"{where}: {table.get('message')}")
