"""The shortcut audit: how much it samples, and whether a run goes on after it has raised a flag."""

from prism.config.base import Config, Count


class AuditConfig(Config):
    """`samples_per_prompt` fresh rollouts of `num_prompts` alignment prompts that the discriminator has not been
    trained on. A recipe with this table audits itself before the game, and after every `every` steps of it. With
    `stop_on_flags` it does not go on past a flag.
    """

    num_prompts: Count = 96
    samples_per_prompt: Count = 4
    every: Count | None = None
    stop_on_flags: bool = True
