"""The shortcut audit: how much it samples, and whether a run goes on after it has raised a flag."""

from prism.config.base import Config, Count


class AuditConfig(Config):
    """`samples_per_prompt` fresh rollouts of `num_prompts` alignment prompts that the discriminator has not been
    trained on. With `stop_on_flags` a run that audits itself does not go on to alignment past a flag.
    """

    num_prompts: Count = 96
    samples_per_prompt: Count = 4
    stop_on_flags: bool = True
