"""Audits of a game while it is played, after every `audit.every` steps: both models as they are then, on prompts that
neither warm-up nor game has shown the discriminator, as long as there are enough of them. They change nothing in the
game, but may stop it."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from prism.errors import AuditError
from prism.models import Discriminator, PromptEncoder
from prism.records import Demonstration
from prism.rollout.engine import PolicyEngine
from prism.runtime.distributed import from_first
from prism.runtime.stage import StageRun
from prism.stages.audit import audit_models, flags_line, in_game, trained_in_game, trained_in_warmup
from prism.stages.workspace import Workspace

AUDITS = "audits.jsonl"
"""The content of an audit.json for every audit, with its `step`."""
_NEWEST = "audit"


class GameAudits:
    """The audits of the game of `run`. `state`, a part of its checkpoints, keeps step and flags of the newest one."""

    def __init__(
        self,
        workspace: Workspace,
        run: StageRun,
        models: tuple[Any, PromptEncoder, Discriminator],
        state: MutableMapping[str, Any],
    ) -> None:
        self._workspace, self._run, self._models, self._state = workspace, run, models, state
        self._config = workspace.recipe.audit
        self._every = self._config.every if self._config else None
        self._trained_on = trained_in_warmup(workspace) if self._every else set[str]()

    def check(self) -> None:
        """Raises AuditError where the newest audit raised a flag, unless the recipe says to go on."""
        if self._must_stop:
            newest = self._state[_NEWEST]
            line = flags_line(newest["flags"], self._run.directory / AUDITS)
            raise AuditError(f"align: stopped after step {newest['step']}: {line}")

    @property
    def _must_stop(self) -> bool:
        newest = self._state.get(_NEWEST)
        return bool(newest and newest["flags"] and self._config and self._config.stop_on_flags)

    def audit_if_due(self, step: int, demonstrations: Sequence[Demonstration], engine: PolicyEngine) -> None:
        """Audits after `step`, on some of the game's `demonstrations`; past a flag a checkpoint is taken before `check`
        stops the game."""
        if self._every is None or step % self._every:
            return
        with self._run.aside():
            document = audit_models(
                self._workspace,
                self._models,
                demonstrations,
                engine,
                trained_on=self._trained_on | trained_in_game(self._workspace, demonstrations, step),
                names=(in_game(step), in_game(step)),
            )
        self._run.log(AUDITS).append({"step": step} | document)
        self._run.say(f"audit after step {step}: {_verdict(document)}")
        # By one process: a check that is close may come out otherwise in another, which would then not save with it.
        flags = from_first(lambda: document["flags"])
        self._state[_NEWEST] = {"step": step, "flags": flags}
        if self._must_stop:
            self._run.save(step)
        self.check()


def _verdict(document: dict[str, Any]) -> str:
    kinds = [kind for kind in ("flags", "warnings", "inconclusive") if document[kind]]
    return "; ".join(f"{kind}: {', '.join(document[kind])}" for kind in kinds) or "nothing to warn of"
