"""What the shortcut audit measures, on inputs built as warm-up and alignment build theirs."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from prism.evals.audit import (
    BLANKED,
    MISCALCULATED,
    MISDESCRIBED,
    SHUFFLED,
    SWAPPED,
    AuditMeasures,
    InputMeasures,
)
from prism.evals.probes import (
    ProbeResult,
    blank_images,
    change_number,
    perturb_response,
    probe_result,
    rank_correlation,
    shuffle_steps,
    swap_images,
)
from prism.evals.shortcuts import TextPair, audit_shortcuts
from prism.evals.statistics import Interval, share_interval
from prism.evals.text_features import Reading
from prism.models import Discriminator, Mode, PromptEncoder, View, view_text
from prism.packing import PackedTrees
from prism.packing.pack import PROMPT
from prism.records import Demonstration, Prompt, Response, Rollout, RolloutGroup
from prism.runtime.seeding import python_random
from prism.stages.rollouts import parse_rollout
from prism.stages.round import make_contest
from prism.stages.scoring import Contest, ContestBatch, ContestScores, score

NUM_INPUTS = 32
"""Prompts whose inputs are compared with the model's own positions, token by token."""


@dataclass(frozen=True, slots=True)
class AuditInputs:
    """What is audited: `groups` are fresh rollouts for the prompts of `demonstrations`, in their order; `body` is a
    Qwen3-VL without a head, for its positions; without a discriminator only texts and inputs are audited."""

    demonstrations: Sequence[Demonstration]
    groups: Sequence[RolloutGroup]
    encoder: PromptEncoder
    body: Any
    discriminator: Discriminator | None
    mode: Mode
    token_budget: int
    seed: int

    def batch(self, contests: Sequence[Contest]) -> ContestBatch:
        return ContestBatch(self.encoder, contests, self.token_budget, self.mode)


def measure(inputs: AuditInputs) -> AuditMeasures:
    contests = [make_contest(*pair) for pair in zip(inputs.demonstrations, inputs.groups, strict=True)]
    batch = inputs.batch(contests)
    reading = _Readings(batch, contests)
    accuracy: dict[str, Interval] = {}
    correlations: dict[str, Interval] = {}
    probes: dict[str, Mapping[str, ProbeResult]] = {}
    if inputs.discriminator is not None:
        pairs = batch.pair_scores(score(inputs.discriminator, batch))
        accuracy = {view: reading.accuracy(pairs, view) for view in batch.view_names}
        correlations = {view: reading.length_correlation(pairs, view) for view in batch.view_names}
        probes = _Probes(inputs, inputs.discriminator).results()
    known = {view: found.mean for view, found in accuracy.items() if found.mean is not None}
    return AuditMeasures(
        inputs=measure_inputs(inputs),
        shortcuts=audit_shortcuts(reading.pairs(), known),
        accuracy=accuracy,
        probes=probes,
        length_correlation=correlations,
        hides_images=inputs.mode == "text-only",
    )


def read_tokens(batch: ContestBatch) -> list[tuple[int, ...]]:
    """The tokens of each branch as they stand in the packed sequences: what the discriminator reads of it."""
    tokens: list[tuple[int, ...]] = [()] * batch.num_branches
    for packed in batch.packs:
        for row, places in _branch_places(packed):
            tokens[row] = tuple(packed.input_ids[places].tolist())
    return tokens


def _branch_places(packed: PackedTrees) -> list[tuple[int, Int[Tensor, "tokens"]]]:
    """Each branch's row, and where its tokens lie: after the branch before it and any prompt between them."""
    ends = [-1, *packed.end_positions.tolist()]
    found = []
    for row, before, end in zip(packed.rows.tolist(), ends[:-1], ends[1:], strict=True):
        places = torch.arange(before + 1, end + 1)
        found.append((row, places[packed.branch_ids[places] != PROMPT]))
    return found


class _Readings:
    """The two sides of every pair as they are read."""

    def __init__(self, batch: ContestBatch, contests: Sequence[Contest]) -> None:
        self._tokens = read_tokens(batch)
        # Row numbers in place of scores, so that they take the same way from branches to pairs.
        self._rows = batch.pair_scores(torch.arange(batch.num_branches, dtype=torch.float64))
        self._sides = [(contest.teacher, student) for contest in contests for student in contest.students]
        self._prompts = [contest.prompt.id for contest in contests for _ in contest.students]
        self._valid = self._rows.is_valid.nonzero().flatten().tolist()

    def pairs(self) -> dict[str, list[TextPair]]:
        """The pairs of each view. The reasoning's answer and its tags are read but are no part of its text: they
        would hide that it is cut. For the same reason a whole response is audited in its parts as well."""
        pairs: dict[str, list[TextPair]] = {}
        tokens = {place: self.tokens_of_sides(place) for place in self._valid}
        for number, view in enumerate(self._rows.views):
            pairs[view] = [self._pair(place, view, *tokens[place][number]) for place in self._valid]
        if "response" in pairs:
            pairs["description"] = [self._pair(place, "perception", (), ()) for place in self._valid]
            pairs["think"] = [self._pair(place, "reasoning", (), ()) for place in self._valid]
        return pairs

    def tokens_of_sides(self, place: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
        """What is read of the teacher and of the student of a pair, view by view."""
        sides = [(rows.teacher[place], rows.student[place]) for rows in self._rows.views.values()]
        return [(self._tokens[int(teacher)], self._tokens[int(student)]) for teacher, student in sides]

    def _pair(self, place: int, view: View, teacher: tuple[int, ...], student: tuple[int, ...]) -> TextPair:
        texts = [_part(response, view) for response in self._sides[place]]
        return TextPair(self._prompts[place], Reading(texts[0], teacher), Reading(texts[1], student))

    def accuracy(self, pairs: ContestScores, view: View) -> Interval:
        """Share of valid pairs that the discriminator orders rightly, ties counting half, limits over prompts."""
        margins = (pairs.views[view].teacher - pairs.views[view].student).tolist()
        outcomes = {str(place): [(1 + float(np.sign(margins[place]))) / 2] for place in self._valid}
        return share_interval(outcomes, {str(place): self._prompts[place] for place in self._valid})

    def length_correlation(self, pairs: ContestScores, view: View) -> Interval:
        """Of the scores of valid rollouts with the tokens that are read, within the groups of a prompt."""
        scores, rows = pairs.views[view].student.tolist(), self._rows.views[view].student
        lengths = [len(self._tokens[int(rows[place])]) for place in self._valid]
        prompts = [self._prompts[place] for place in self._valid]
        return rank_correlation([scores[place] for place in self._valid], lengths, prompts)


def _part(response: Response, view: View) -> str:
    if view == "response":
        return view_text(response, view)
    return str(response.caption if view == "perception" else response.think)


class _Probes:
    """The teacher's responses with one thing broken: how the discriminator's scores of them change."""

    def __init__(self, inputs: AuditInputs, discriminator: Discriminator) -> None:
        self._inputs, self._discriminator = inputs, discriminator
        self._prompts = [demonstration.prompt for demonstration in inputs.demonstrations]
        self._responses = [demonstration.response for demonstration in inputs.demonstrations]
        self._scores = self._score(self._prompts, self._responses)

    def results(self) -> dict[str, Mapping[str, ProbeResult]]:
        """View → what was broken → its effect; an effect on nothing where nothing could be broken."""
        images = {SWAPPED: swap_images(self._prompts), BLANKED: [blank_images(prompt) for prompt in self._prompts]}
        broken = {
            SHUFFLED: self._broken("think", shuffle_steps),
            MISCALCULATED: self._broken("think", change_number),
            MISDESCRIBED: self._broken("caption", change_number),
        }
        found: dict[str, Mapping[str, ProbeResult]] = {}
        for view in self._scores:
            chosen: dict[str, ProbeResult] = {}
            if view != "reasoning":
                for name, prompts in images.items():
                    chosen[name] = self._effect(view, prompts, self._responses)
                chosen[MISDESCRIBED] = self._effect(view, self._prompts, broken[MISDESCRIBED])
            if view != "perception":
                for name in (SHUFFLED, MISCALCULATED):
                    chosen[name] = self._effect(view, self._prompts, broken[name])
            found[view] = chosen
        return found

    def _broken(
        self, part: Literal["caption", "think"], perturb: Callable[[str, random.Random], str | None]
    ) -> list[Response | None]:
        source = python_random(self._inputs.seed, "audit", part)
        return [perturb_response(response, part, lambda text: perturb(text, source)) for response in self._responses]

    def _effect(
        self, view: View, prompts: Sequence[Prompt | None], responses: Sequence[Response | None]
    ) -> ProbeResult:
        rows = [
            (row, prompt, response)
            for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True))
            if prompt is not None and response is not None
        ]
        scores = self._score([prompt for _, prompt, _ in rows], [response for *_, response in rows])
        original = [self._scores[view][row] for row, *_ in rows]
        return probe_result(original, scores.get(view, []), [prompt.id for _, prompt, _ in rows])

    def _score(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> dict[View, list[float]]:
        batch = self._inputs.batch([Contest(*texts, ()) for texts in zip(prompts, responses, strict=True)])
        scores = score(self._discriminator, batch)
        return {view: scores[batch.views == place].tolist() for place, view in enumerate(batch.view_names)}


def measure_inputs(inputs: AuditInputs) -> InputMeasures:
    """Builds the inputs of some prompts one by one, the teacher's response on both sides, as if a rollout had
    come out with the same text."""
    chosen = inputs.demonstrations[:NUM_INPUTS]
    hides_images = inputs.mode == "text-only"
    wrong, images, images_read, otherwise, texts = 0, 0, 0, 0, 0
    for demonstration in chosen:
        text = demonstration.response.text
        rollout = Rollout(0, tuple(inputs.encoder.completion_ids(text)), text, True)
        contest = Contest(demonstration.prompt, demonstration.response, (parse_rollout(rollout),))
        batch = inputs.batch([contest])
        sides = _Readings(batch, [contest]).tokens_of_sides(0)
        texts += len(sides)
        otherwise += sum(teacher != student for teacher, student in sides)
        wrong += any(has_other_positions(inputs.body, packed, inputs.encoder.image_token_id) for packed in batch.packs)
        images += 0 if hides_images else len(demonstration.prompt.images)
        grid = batch.packs[0].image_grid_thw
        images_read += 0 if grid is None else len(grid)
    return InputMeasures(len(chosen), wrong, images, images_read, texts, otherwise)


def has_other_positions(body: Any, packed: PackedTrees, image_token_id: int) -> bool:
    """Whether a pack of one prompt gives some branch other positions than the model does, reading it alone."""
    prompt = (packed.branch_ids == PROMPT).nonzero().flatten()
    for _, places in _branch_places(packed):
        alone = torch.cat([prompt, places])
        ids = packed.input_ids[alone]
        is_image = (ids == image_token_id).int()
        expected, _ = body.get_rope_index(ids[None], is_image[None], image_grid_thw=packed.image_grid_thw)
        if not torch.equal(packed.position_ids[:, alone], expected[:, 0]):
            return True
    return False
