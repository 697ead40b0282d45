"""What `prism plan` has to know of the data where it cannot read them."""

from prism.config.base import Config, Count, Fraction, NonNegativeCount


class TypicalConfig(Config):
    """The [plan] table: what a typical row is like. What is left out is counted in the data, if these and the base's
    processor are on this machine; nothing else is ever assumed.

    `prompt_tokens` are those of a prompt without its images, `image_size` (width, height) is in pixels, before the
    processor fits it to its budget. `caption_tokens` and `reasoning_tokens` (with the answer) are those of a response's
    parts; `rollout_tokens` says how long the policy's own responses are, by default as long as the teacher's.
    `longest_rollout` is that of the longest of a batch, which an engine without continuous batching waits for.
    `kept_groups` is the share of prompts whose rollouts differ in accuracy, for DAPO. `num_demonstrations` and
    `num_test` count the rows of `data.sft` and `data.test`.
    """

    prompt_tokens: Count | None = None
    images_per_prompt: NonNegativeCount | None = None
    image_size: tuple[Count, Count] | None = None
    caption_tokens: Count | None = None
    reasoning_tokens: Count | None = None
    rollout_tokens: Count | None = None
    longest_rollout: Count | None = None
    kept_groups: Fraction | None = None
    num_demonstrations: Count | None = None
    num_test: Count | None = None
