"""Audits of a game while it is played, after every `audit.every` steps: both models as they are then, on prompts that
neither warm-up nor game has shown the discriminator. They change nothing in the game, but may stop it."""

from collections.abc import MutableMapping, Sequence
from typing import Any

from prism.errors import AuditError
from prism.models import Discriminator, PromptEncoder
from prism.records import Demonstration
from prism.rollout.engine import PolicyEngine
from prism.runtime.stage import StageRun
from prism.stages.audit import audit_models, flags_line, game_subject
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

    def check(self) -> None:
        """Raises AuditError where the newest audit raised a flag, unless the recipe says to go on."""
        newest = self._state.get(_NEWEST)
        if newest and newest["flags"] and self._config and self._config.stop_on_flags:
            path = self._run.directory / AUDITS
            raise AuditError(f"align: after step {newest['step']} {flags_line(newest['flags'], path)}")

    def observe(self, step: int, demonstrations: Sequence[Demonstration], engine: PolicyEngine) -> None:
        """Audits after `step` if that is due, on some of the game's `demonstrations`; a checkpoint is taken before
        `check` stops the game."""
        config = self._config
        if config is None or config.every is None or step % config.every:
            return
        subject = game_subject(self._workspace, step, lambda: self._models)
        document = audit_models(self._workspace, subject, self._models, demonstrations, engine)
        engine.sleep()
        self._run.log(AUDITS).append({"step": step} | document)
        raised = [f"{kind} {', '.join(document[kind])}" for kind in ("flags", "warnings") if document[kind]]
        self._run.say(f"audit after step {step}: {'; '.join(raised) or 'nothing to warn of'}")
        self._state[_NEWEST] = {"step": step, "flags": document["flags"]}
        if document["flags"] and config.stop_on_flags:
            self._run.save(step)
        self.check()
