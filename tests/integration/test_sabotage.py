"""Set-ups broken on purpose, each named by the audit or by collapse control, and a healthy one that is not.

All start from one SFT and one warm-up on the shipped base. What is wrong with the data or with the input builder
is put in by a small wrapper, what is wrong with the discriminator's training is a setting. The slow variants
have seeds of their own and warm up under the artefact as well.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from prism.cli import FLAGGED, main
from prism.config import Recipe, load_recipe
from prism.errors import AlignmentCollapseError
from prism.evals.audit import SWAPPED
from prism.models import PromptEncoder, response_branch, visible_prompt
from prism.packing import Branch, EncodedPrompt, Pixels
from prism.records import Demonstration, Prompt, Response, RolloutGroup
from prism.rewards import parse_response
from prism.rollout.engine import PolicyEngine
from prism.stages import audit, datasets, scoring, warmup
from prism.stages.audit import read_audit
from prism.stages.pipeline import run_recipe

RECIPE = Path(__file__).with_name("sabotage.toml")
CUT = 60
FILLER = "Let us look at this picture closely and with patience."

STAGES = ("data", "base", "sft", "warmup")

Patch = pytest.MonkeyPatch
Sabotage = Callable[[Patch], None]


def settings(directory: Path, seed: int) -> list[str]:
    return [f"output={directory}", f"seeds=[{seed}]", "threads=1"]


def load(directory: Path, *overrides: str, seed: int = 0) -> Recipe:
    return load_recipe(RECIPE, [*settings(directory, seed), *overrides])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run up to and including its warm-up."""
    directory = tmp_path_factory.mktemp("runs") / "healthy"
    run_recipe(load(directory), stop_after="warmup")
    return directory


def branch_off(healthy: Path, directory: Path, *stages: str, seed: int = 0) -> Path:
    """A run of its own that goes on from stages of another."""
    own = directory / f"seed-{seed}"
    own.mkdir(parents=True)
    for stage in stages:
        (own / stage).symlink_to(healthy / f"seed-{seed}" / stage, target_is_directory=True)
    return directory


def audited(directory: Path, *, seed: int = 0) -> dict[str, Any]:
    """What `prism audit` finds, its exit status being the right one."""
    status = main(["audit", str(RECIPE), *settings(directory, seed)])
    found = read_audit(directory / f"seed-{seed}" / "audit" / "audit.json")
    assert status == (FLAGGED if found["flags"] else 0)
    return found


def played(directory: Path, *overrides: str, seed: int = 0) -> list[str]:
    """The diagnoses of a short game under collapse control."""
    try:
        run_recipe(load(directory, *overrides, seed=seed), only="align")
    except AlignmentCollapseError as collapse:
        events = (directory / f"seed-{seed}" / "align" / "events.jsonl").read_text().splitlines()
        diagnoses = [event["diagnosis"] for event in map(json.loads, events) if event["event"] == "stop"]
        assert diagnoses and diagnoses[0] in str(collapse)
        return diagnoses
    return []


class SampledOnce:
    """An engine that repeats what it has drawn before: nothing that is broken before an audit touches the policy."""

    def __init__(self, engine: PolicyEngine, drawn: dict[str, list[RolloutGroup]]) -> None:
        self._engine, self._drawn = engine, drawn

    def generate(self, prompts: Sequence[Prompt], **settings: Any) -> list[RolloutGroup]:
        asked = repr(([prompt.id for prompt in prompts], settings))
        if asked not in self._drawn:
            self._drawn[asked] = self._engine.generate(prompts, **settings)
        return self._drawn[asked]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[RolloutGroup]]:
    return {}


@pytest.fixture
def sampled_once(drawn: dict[str, list[RolloutGroup]], monkeypatch: Patch) -> None:
    """Audits of one policy share the rollouts."""
    opened = audit.open_engine

    @contextmanager
    def open_engine(*arguments: Any, **settings: Any) -> Iterator[SampledOnce]:
        with opened(*arguments, **settings) as engine:
            yield SampledOnce(engine, drawn)

    monkeypatch.setattr(audit, "open_engine", open_engine)


def change_demonstrations(patch: Patch, change: Callable[[Demonstration], Demonstration]) -> None:
    def read(*arguments: Any) -> list[Demonstration]:
        return [change(given) for given in datasets.read_alignment(*arguments)]

    for stage in (audit, warmup):
        patch.setattr(stage, "read_alignment", read)


def with_teacher(edit: Callable[[str], str]) -> Sabotage:
    """Description and reasoning of every response of the teacher in the alignment data are edited."""

    def change(demonstration: Demonstration) -> Demonstration:
        given = demonstration.response
        parts = f"<caption>{edit(str(given.caption))}</caption><think>{edit(str(given.think))}</think>"
        response = parse_response(f"{parts}<answer>{given.answer}</answer>")
        assert response.is_valid
        return dataclasses.replace(demonstration, response=response)

    return lambda patch: change_demonstrations(patch, change)


def pad_the_teacher(patch: Patch) -> None:
    """The teacher's branches end with a padding token, the rollouts' with the end token."""
    teachers: dict[int, Response] = {}

    def remember(demonstration: Demonstration) -> Demonstration:
        teachers[id(demonstration.response)] = demonstration.response
        return demonstration

    def branch(encoder: PromptEncoder, response: Response, view: Any) -> Branch:
        built = response_branch(encoder, response, view)
        pad = encoder.tokenizer.get_vocab()[str(encoder.tokenizer.pad_token)]
        return Branch.of([*built.token_ids[:-1].tolist(), pad]) if id(response) in teachers else built

    change_demonstrations(patch, remember)
    patch.setattr(scoring, "response_branch", branch)


def change_prompts(patch: Patch, change: Callable[[EncodedPrompt], EncodedPrompt]) -> None:
    """What the discriminator reads; the policy's prompts stay as they are."""

    class Changed:
        def __init__(self, encoder: PromptEncoder) -> None:
            self._encoder = encoder

        def encode(self, prompt: Prompt) -> EncodedPrompt:
            return change(self._encoder.encode(prompt))

        def __getattr__(self, name: str) -> Any:
            return getattr(self._encoder, name)

    build = scoring.ContestBatch.__init__

    def changed(batch: scoring.ContestBatch, encoder: Any, *arguments: Any) -> None:
        build(batch, Changed(encoder), *arguments)  # type: ignore[arg-type]

    patch.setattr(scoring.ContestBatch, "__init__", changed)


def flatten_positions(patch: Patch) -> None:
    """Image tokens have the positions of a text."""

    def flat(encoded: EncodedPrompt) -> EncodedPrompt:
        positions = torch.arange(len(encoded)).expand(3, -1)
        return dataclasses.replace(encoded, position_ids=positions, next_position=len(encoded))

    change_prompts(patch, flat)


def blank_pixels(patch: Patch) -> None:
    """All images are read, and all look alike."""

    def blank(encoded: EncodedPrompt) -> EncodedPrompt:
        pixels = encoded.pixels
        assert pixels is not None
        return dataclasses.replace(encoded, pixels=Pixels(lambda: torch.zeros_like(pixels.values)))

    change_prompts(patch, blank)


def withhold_images(patch: Patch) -> None:
    patch.setattr(scoring, "visible_prompt", lambda prompt, mode: visible_prompt(prompt, "text-only"))


ARTEFACTS: dict[str, tuple[Sabotage, str]] = {
    "teacher texts truncated": (with_teacher(lambda text: text[:CUT].strip()), "truncated-teacher"),
    "pad-token ending on one side": (pad_the_teacher, "end-token"),
    "image positions flattened": (flatten_positions, "image-positions"),
    "teacher longer by a filler": (with_teacher(lambda text: f"{FILLER} {text}"), "filler"),
    "image withheld": (withhold_images, "images-ignored"),
    "image read but blank": (blank_pixels, "images-ignored"),
}
artefacts = pytest.mark.parametrize(("sabotage", "flag"), ARTEFACTS.values(), ids=ARTEFACTS)


@pytest.mark.usefixtures("sampled_once")
def test_the_audit_of_a_healthy_run_raises_no_flag(healthy: Path, tmp_path: Path) -> None:
    found = audited(branch_off(healthy, tmp_path / "run", *STAGES))
    assert found["flags"] == []
    assert found["subject"]["num_seen"] == 0
    assert not any(check["verdict"] == "inconclusive" for check in found["checks"])


@pytest.mark.usefixtures("sampled_once")
@artefacts
def test_the_audit_names_what_was_broken(
    healthy: Path, tmp_path: Path, monkeypatch: Patch, sabotage: Sabotage, flag: str
) -> None:
    directory = branch_off(healthy, tmp_path / "run", *STAGES)
    sabotage(monkeypatch)
    assert flag in audited(directory)["flags"]


TRAINING = {
    "discriminator frozen": ("align.discriminator_learning_rate=1e-12", "discriminator-frozen"),
    "discriminator learning rate x 100": ("align.discriminator_learning_rate=1e-2", "discriminator-overshooting"),
}
training = pytest.mark.parametrize(("setting", "diagnosis"), TRAINING.values(), ids=TRAINING)


def test_a_healthy_game_is_not_stopped(healthy: Path, tmp_path: Path) -> None:
    assert played(branch_off(healthy, tmp_path / "run", *STAGES)) == []


@training
def test_collapse_control_names_what_was_broken(healthy: Path, tmp_path: Path, setting: str, diagnosis: str) -> None:
    assert diagnosis in played(branch_off(healthy, tmp_path / "run", *STAGES), setting)


@pytest.fixture(scope="module", params=[1, 2, 3])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A healthy run up to its warm-up, with a seed of its own."""
    seed = int(request.param)
    directory = tmp_path_factory.mktemp("runs") / "healthy"
    run_recipe(load(directory, seed=seed), stop_after="warmup")
    return directory, seed


def measured(document: dict[str, Any], flag: str) -> str:
    found = [f"{check['view']} {check['measured']}" for check in document["checks"] if check["name"] == flag]
    if flag == "images-ignored":
        found.append(f"change {document['probes']['perception'][SWAPPED]['shift']:.1e} sd")
    return ", ".join(found)


@pytest.mark.slow
@artefacts
def test_with_other_seeds_and_a_warm_up_under_the_artefact(
    other: tuple[Path, int], tmp_path: Path, monkeypatch: Patch, sabotage: Sabotage, flag: str
) -> None:
    """The healthy run of the same seed raises no flag. With `-s` the distance between both is printed."""
    healthy, seed = other
    whole = audited(branch_off(healthy, tmp_path / "whole", *STAGES, seed=seed), seed=seed)
    assert whole["flags"] == []
    directory = branch_off(healthy, tmp_path / "run", "data", "base", "sft", seed=seed)
    sabotage(monkeypatch)
    run_recipe(load(directory, seed=seed), only="warmup")
    broken = audited(directory, seed=seed)
    print(f"\nseed {seed}, {flag}: healthy {measured(whole, flag)}; broken {measured(broken, flag)}")
    print(f"  flags: {', '.join(broken['flags'])}; warnings: {', '.join(broken['warnings'])}")
    assert flag in broken["flags"]


@pytest.mark.slow
def test_with_other_seeds_collapse_control_names_what_was_broken(other: tuple[Path, int], tmp_path: Path) -> None:
    """With `-s` the relative change of the discriminator's weights per step is printed, healthy first."""
    healthy, seed = other
    for setting, diagnosis in (("align.num_steps=6", None), *TRAINING.values()):
        directory = branch_off(healthy, tmp_path / str(diagnosis), *STAGES, seed=seed)
        found = played(directory, setting, seed=seed)
        log = (directory / f"seed-{seed}" / "align" / "metrics.jsonl").read_text().splitlines()
        changes = [json.loads(row)["discriminator/weight_change"] for row in log]
        print(f"\nseed {seed}, {diagnosis}: weight change {min(changes):.1e} to {max(changes):.1e}; {found}")
        assert diagnosis in found if diagnosis else found == []
