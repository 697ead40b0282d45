"""Which models and prompts an audit takes, when it is repeated, and what it does past a flag.

The policy of these runs is a parrot: it says what the teacher says, so that both sides have one text.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from prism.config import PlannedStage, Recipe, plan_stages
from prism.errors import AuditError, CheckpointError, ConfigError
from prism.models import Discriminator, PromptEncoder
from prism.records import Prompt, Rollout, RolloutGroup
from prism.stages import align, audit, base, datasets, warmup
from prism.stages.audit import choose_prompts, read_audit
from prism.stages.workspace import Workspace
from still_engine import StillEngine

Make = Callable[..., Any]
DATA = {"public": 2, "curated": 2, "alignment": 14, "rl": 2, "dev": 2, "test_per_benchmark": 2}
LENGTHS = {"max_response_tokens": 170, "token_budget": 2300}
WARMUP = LENGTHS | {"num_steps": 2, "batch_size": 3, "num_heldout": 4, "learning_rate": 1e-3}
ALIGN = LENGTHS | {"num_steps": 2, "prompts_per_step": 2, "group_size": 2, "checkpoint_every": 1}
AUDIT = {"num_prompts": 4, "samples_per_prompt": 1}
RUNNERS = {"base": base.run, "warmup": warmup.run, "audit": audit.run, "align": align.run}


class Parrot(StillEngine):
    """In place of the engine of every stage; remembers what it was asked."""

    texts: dict[str, str]
    asked: dict[str, list[str]]

    def __init__(self, stage: str, encoder: PromptEncoder) -> None:
        self._stage, self._encoder = stage, encoder

    def generate(self, prompts: Sequence[Prompt], *, num_samples: int, **_: Any) -> list[RolloutGroup]:
        Parrot.asked.setdefault(self._stage, []).extend(prompt.id for prompt in prompts)
        return [
            RolloutGroup(prompt, tuple(self._say(prompt.id, sample) for sample in range(num_samples)))
            for prompt in prompts
        ]

    def _say(self, prompt: str, sample: int) -> Rollout:
        text = Parrot.texts[prompt]
        return Rollout(sample, tuple(self._encoder.completion_ids(text)), text, True)


@pytest.fixture
def make_run(make_workspace: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Workspace]:
    """A workspace with its data; `play` then runs its stages."""
    Parrot.asked, Parrot.texts = {}, {}
    for stage in (warmup, align, audit):
        name = stage.__name__.rpartition(".")[2]
        monkeypatch.setattr(
            stage, "open_engine", lambda space, policy, encoder, name=name, **_: nullcontext(Parrot(name, encoder))
        )

    def make(**tables: Any) -> Workspace:
        workspace = make_workspace(**({"data": DATA, "warmup": WARMUP, "align": ALIGN} | tables))
        datasets.prepare(workspace)
        Parrot.texts |= {given.prompt.id: given.response.text for given in datasets.read_alignment(workspace, 170)}
        return workspace

    return make


def mispronounce() -> None:
    """Of texts that are the teacher's to the letter a discriminator learns nothing."""
    Parrot.texts = {
        name: text.replace("<caption>", "<caption>so ").replace("<think>", "<think>so ")
        for name, text in Parrot.texts.items()
    }


def play(workspace: Workspace, *kinds: str) -> None:
    for stage in plan_stages(workspace.recipe):
        if stage.kind in kinds:
            RUNNERS[stage.kind](workspace, stage)


def last_metrics(workspace: Workspace, stage: str) -> dict[str, float]:
    rows = (workspace.stage_directory(stage) / "metrics.jsonl").read_text().splitlines()
    return json.loads(rows[-1])


def test_equal_texts_score_equally_in_warm_up_alignment_and_audit(
    make_run: Make, make_discriminator: Make, encoder: PromptEncoder, tmp_path: Path
) -> None:
    """By every stage's own code, with a discriminator whose scores differ from text to text."""
    given: Discriminator = make_discriminator("moe")
    given.save_pretrained(tmp_path / "judge")
    encoder.save_pretrained(tmp_path / "judge")
    workspace = make_run(discriminator={"checkpoint": tmp_path / "judge"}, audit=AUDIT)
    play(workspace, "base", "warmup", "audit", "align")
    for stage, name in (("warmup", "heldout/{}_gap"), ("align", "gap/{}")):
        measured = last_metrics(workspace, stage)
        assert [measured[name.format(view)] for view in given.views] == pytest.approx([0, 0], abs=1e-5)
    document = read_audit(workspace.stage_directory("audit") / "audit.json")
    assert document["inputs"]["num_read_otherwise"] == 0
    assert document["probes"]["perception"]["a number changed in the description"]["fall"]["mean"] not in (None, 0.0)


def test_the_audit_asks_for_prompts_that_the_discriminator_was_not_trained_on(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told from what warm-up and alignment really put into the discriminator's batches."""
    monkeypatch.setattr(audit, "MIN_PROMPTS", 1)
    trained: dict[str, set[str]] = {"warmup": set(), "align": set()}
    for stage in (warmup, align):
        draw, name = stage.draw_batch, stage.__name__.rpartition(".")[2]

        def remember(*arguments: Any, draw: Any = draw, name: str = name) -> Any:
            batch = draw(*arguments)
            trained[name] |= {given.prompt.id for given in batch}
            return batch

        monkeypatch.setattr(stage, "draw_batch", remember)
    workspace = make_run(audit=AUDIT | {"num_prompts": 14})
    play(workspace, "base", "warmup", "audit")
    everything = set(Parrot.texts)
    assert set(Parrot.asked["audit"]) == everything - trained["warmup"] and len(trained["warmup"]) == 6
    Parrot.asked.clear()
    play(workspace, "align")
    document = read_audit(audit.run_newest(workspace))
    assert set(Parrot.asked["audit"]) == everything - trained["warmup"] - trained["align"] != set()
    assert (document["subject"]["num_seen"], document["subject"]["discriminator"]) == (0, "align, step 2")


def test_a_warm_up_of_several_epochs_goes_over_fewer_pairs_again(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the audit knows which: two steps of three prompts are one pass over six pairs, or two over three."""
    seen: list[str] = []
    draw = warmup.draw_batch

    def remember(*arguments: Any) -> Any:
        batch = draw(*arguments)
        seen.extend(given.prompt.id for given in batch)
        return batch

    monkeypatch.setattr(warmup, "draw_batch", remember)
    monkeypatch.setattr(audit, "MIN_PROMPTS", 1)
    workspace = make_run(warmup=WARMUP | {"num_epochs": 2}, audit=AUDIT | {"num_prompts": 14})
    play(workspace, "base", "warmup", "audit")
    assert len(Parrot.asked["warmup"]) == WARMUP["num_heldout"] + 3
    assert sorted(seen[:3]) == sorted(seen[3:]) == sorted(Parrot.asked["warmup"][WARMUP["num_heldout"] :])
    assert not set(Parrot.asked["audit"]) & set(seen) and len(Parrot.asked["audit"]) == len(Parrot.texts) - 3


@pytest.mark.parametrize("shorter", ["warmup", "align"])
def test_what_the_warm_up_trained_on_is_known_though_alignment_takes_other_rows(
    make_run: Make, encoder: PromptEncoder, monkeypatch: pytest.MonkeyPatch, shorter: str
) -> None:
    """The longest rows are too long for one of the two: what is left of the data is in quite another order."""
    monkeypatch.setattr(audit, "MIN_PROMPTS", 1)
    workspace = make_run(audit=AUDIT | {"num_prompts": 14})
    lengths = {prompt: len(encoder.completion_ids(text)) for prompt, text in Parrot.texts.items()}
    limit = max(lengths.values()) - 1
    tables = workspace.recipe.model_dump()
    tables[shorter]["max_response_tokens"] = limit
    workspace = Workspace(Recipe.model_validate(tables), workspace.seed, workspace.directory)
    play(workspace, "base", "warmup", "audit")
    trained = set(Parrot.asked["warmup"][WARMUP["num_heldout"] :])
    everything = {prompt for prompt, length in lengths.items() if length <= limit or shorter == "warmup"}
    assert len(trained) == 6 and set(Parrot.asked["audit"]) == everything - trained


def test_others_are_taken_where_too_few_are_new(make_run: Make) -> None:
    workspace = make_run()
    demonstrations = datasets.read_alignment(workspace, 170)
    ids = [given.prompt.id for given in demonstrations]

    def chosen(trained_on: set[str], count: int) -> list[str]:
        return [given.prompt.id for given in choose_prompts(workspace, demonstrations, trained_on, count)]

    new = chosen(set(ids[3:]), 14)
    assert set(new[:3]) == set(ids[:3]) and sorted(new) == sorted(ids)
    assert set(chosen(set(ids[3:]), 3)) == set(ids[:3])
    assert chosen(set(), 5) == chosen(set(), 14)[:5] != ids[:5]


def test_the_newest_state_of_a_run_is_audited(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the warm-up, after it, at a checkpoint of the game and at its end: each with its own models."""
    workspace = make_run()
    mispronounce()
    with pytest.raises(CheckpointError, match="stage 'base' is not complete"):
        audit.run_newest(workspace)
    loaded: list[Any] = []
    measure = audit.measure
    monkeypatch.setattr(audit, "measure", lambda inputs: (loaded.append(inputs), measure(inputs))[1])

    def newest() -> tuple[str, Any]:
        path = audit.run_newest(workspace)
        return path.parent.name, read_audit(path)["subject"]["discriminator"]

    play(workspace, "base")
    assert newest() == ("audit", None) and loaded[-1].discriminator is None
    play(workspace, "warmup")
    assert newest() == ("audit", "warmup")
    with monkeypatch.context() as patch:
        patch.setattr(align, "make_round", _fails_at(align.make_round, call=2))
        with pytest.raises(RuntimeError, match="killed"):
            play(workspace, "align")
    assert newest() == ("audit-align", "align, step 1")
    play(workspace, "align")
    assert newest() == ("audit-align", "align, step 2")
    warm, first, second = (inputs.discriminator.head.weight for inputs in loaded[1:])
    saved = Discriminator.from_pretrained(workspace.stage_directory("align") / "discriminator")
    assert torch.equal(second, saved.head.weight)
    assert not torch.equal(first, warm) and not torch.equal(first, second)
    assert len(loaded) == 4 and newest()[1] == "align, step 2" and len(loaded) == 4  # what is unchanged is kept


def test_a_game_by_other_settings_or_from_another_warm_up_is_not_the_newest_state(make_run: Make) -> None:
    workspace = make_run()
    play(workspace, "base", "warmup", "align")

    def newest(**changes: Any) -> str:
        tables = workspace.recipe.model_dump()
        for name, settings in changes.items():
            tables[name] |= settings
        return audit.run_newest(Workspace(Recipe.model_validate(tables), 0, workspace.directory)).parent.name

    assert newest(align={"policy_learning_rate": 3e-4}) == "audit"
    assert newest(align={"checkpoint_every": 7}) == "audit-align"
    manifest = workspace.stage_directory("align") / "manifest.json"
    written = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(written | {"inputs": written["inputs"] | {"warmup": "0" * 64}}))
    assert newest() == "audit"


def _fails_at(function: Callable[..., Any], *, call: int) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise RuntimeError("killed")
        return function(*arguments)

    return wrapped


def test_the_stage_and_the_command_share_one_audit(make_run: Make) -> None:
    workspace = make_run(audit=AUDIT)
    play(workspace, "base", "warmup", "audit")
    path = workspace.stage_directory("audit") / "audit.json"
    written = path.stat().st_mtime_ns
    assert audit.run_newest(workspace) == path and path.stat().st_mtime_ns == written


def test_a_run_stops_past_a_flag_unless_told_to_go_on(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same command again stops again, without another audit."""
    document = audit.audit_document
    monkeypatch.setattr(audit, "audit_document", lambda *given: document(*given) | {"flags": ["filler", "length"]})
    workspace = make_run(audit=AUDIT)
    play(workspace, "base", "warmup")
    for _ in range(2):
        with pytest.raises(AuditError, match=r"^audit: filler, length; `prism audit` shows .*audit\.json"):
            play(workspace, "audit")
    assert len(Parrot.asked["audit"]) == AUDIT["num_prompts"]
    play(changed(workspace, audit=AUDIT | {"stop_on_flags": False}), "audit")
    assert len(Parrot.asked["audit"]) == AUDIT["num_prompts"]


def changed(workspace: Workspace, **tables: Any) -> Workspace:
    """The same run by a recipe with other tables."""
    recipe = Recipe.model_validate(workspace.recipe.model_dump() | tables)
    return Workspace(recipe, workspace.seed, workspace.directory)


def game_audits(workspace: Workspace) -> list[dict[str, Any]]:
    rows = (workspace.stage_directory("align") / "audits.jsonl").read_text().splitlines()
    return [json.loads(row) for row in rows]


def test_a_game_that_audits_itself_is_the_same_game(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its audits have the state after their step: the last one is what `prism audit` finds in the models at its end."""
    monkeypatch.setattr(audit, "MIN_PROMPTS", 1)
    workspace = make_run()
    mispronounce()
    play(workspace, "base", "warmup", "align")
    align_directory = workspace.stage_directory("align")
    plain = {name: (align_directory / name).read_text() for name in ("metrics.jsonl", "samples.jsonl")}
    hashes = json.loads((align_directory / "manifest.json").read_text())["outputs"]
    assert not (align_directory / "audits.jsonl").exists()
    shutil.rmtree(align_directory)

    watched = changed(workspace, audit=AUDIT | {"every": 1})
    Parrot.asked.clear()
    play(watched, "align")
    assert plain == {name: (align_directory / name).read_text() for name in plain}
    assert hashes == json.loads((align_directory / "manifest.json").read_text())["outputs"]
    first, last = game_audits(watched)
    assert (first["step"], last["step"]) == (1, 2) and first["probes"] != last["probes"]
    at_end = read_audit(audit.run_newest(watched))
    assert last == {"step": 2} | at_end and at_end["subject"]["num_seen"] == 0
    assert Parrot.asked["audit"] == Parrot.asked["align"][-AUDIT["num_prompts"] :]


def test_a_game_stops_past_a_flag_unless_told_to_go_on(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a checkpoint of the step, so that the same command stops again without another step."""
    document = audit.audit_document
    monkeypatch.setattr(audit, "audit_document", lambda *given: document(*given) | {"flags": ["filler"]})
    settings = AUDIT | {"every": 1}
    workspace = make_run(audit=settings, align=ALIGN | {"checkpoint_every": 50})
    play(workspace, "base", "warmup")
    for _ in range(2):
        with pytest.raises(AuditError, match=r"^align: stopped after step 1: filler; `prism audit` .*audits\.jsonl"):
            play(workspace, "align")
    assert [found["step"] for found in game_audits(workspace)] == [1]
    asked = len(Parrot.asked["align"])
    play(changed(workspace, audit=settings | {"stop_on_flags": False}), "align")
    assert [found["step"] for found in game_audits(workspace)] == [1, 2]
    assert len(Parrot.asked["align"]) == 2 * asked == 2 * (ALIGN["prompts_per_step"] + AUDIT["num_prompts"])


def test_a_trained_discriminator_from_outside_is_audited_without_a_warm_up(
    make_run: Make, make_discriminator: Make, encoder: PromptEncoder, tmp_path: Path
) -> None:
    make_discriminator("moe").save_pretrained(tmp_path / "judge")
    encoder.save_pretrained(tmp_path / "judge")
    workspace = make_run(warmup=None, discriminator={"checkpoint": tmp_path / "judge"}, audit=AUDIT)
    play(workspace, "base")
    document = read_audit(audit.run_newest(workspace))
    assert document["subject"]["discriminator"] == str(tmp_path / "judge") and document["probes"]
    assert document["subject"]["num_seen"] == 0


def test_what_cannot_be_audited_is_said(make_workspace: Make) -> None:
    with pytest.raises(ConfigError, match=r"neither \[warmup\] nor \[align\]"):
        audit.run_newest(make_workspace())
    planned = PlannedStage("audit", "audit", "base", ("base",), 0, False)
    with pytest.raises(ConfigError, match=r"no \[audit\] table"):
        audit.run(make_workspace(), planned)
