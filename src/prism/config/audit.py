"""The shortcut audit: how much it samples, and whether a run goes on after it has raised a flag."""

from prism.config.base import Config, Count


class AuditConfig(Config):
    """`samples_per_prompt` fresh rollouts of `num_prompts` alignment prompts that the discriminator has not been
    trained on. A recipe with this table audits itself before the game and, with `every`, after every so many steps
    of it. With `stop_on_flags` it does not go on past a flag.
    """

    num_prompts: Count = 96
    samples_per_prompt: Count = 4
    every: Count | None = None
    stop_on_flags: bool = True

    @property
    def sampling(self) -> "AuditConfig":
        """What an audit's findings depend on: neither on what the run then does about them nor on when it looks."""
        return AuditConfig(num_prompts=self.num_prompts, samples_per_prompt=self.samples_per_prompt)
