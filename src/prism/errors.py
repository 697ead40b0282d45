"""Errors a user can act on.

Each is raised where the fact is known, carries one line that says what is wrong, where, and what to
do, and is caught only by the command line, which prints that line and exits with status 2.
"""


class PrismError(Exception):
    """Base of every error that is the user's to mend rather than a defect of this package."""


class ConfigError(PrismError):
    """A recipe or an override is unknown, of the wrong type or contradicts another setting."""


class DataError(PrismError):
    """A data file, a row or an image cannot be used. Names file, row and field."""


class RewardError(PrismError):
    """A reward could not be computed, which is never the same as a reward of zero."""


class CheckpointError(PrismError):
    """A checkpoint is missing, incomplete, damaged or belongs to another run."""


class ModelError(PrismError):
    """A model directory cannot serve in the role it was given."""


class NumericsError(PrismError):
    """NaN or Inf appeared. Names the step and the quantity."""


class AlignmentCollapseError(PrismError):
    """The adversarial game has failed. Names the diagnosis, what was measured and what to try."""


class AuditError(PrismError):
    """The audit of a run has raised a flag, and the run was told not to go on past one. Names the flags."""


class RolloutError(PrismError):
    """What generates text refused, kept failing, or does not follow the policy. Names it and what was asked."""


class BudgetError(PrismError):
    """What may be spent is spent. Names the budget and what was spent; what was bought is kept."""


class StorageError(PrismError):
    """The disk is full, a file cannot be written, or one that is in use was changed or cannot be read again."""
