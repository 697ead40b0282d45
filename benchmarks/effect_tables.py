"""What `effect.py report` prints beside the report's own table: seeds one by one, what PRISM is ahead of every other
arm in each of them, all pairs of arms, rollouts, drift, and the games while they are played.

Differences are paired by question within a seed; limits are Student's over the seeds, 95%, and no narrower than the
questions within the seeds allow.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from statistics import fmean, median

from prism.config import CELLS, plan_stages, policy_before_alignment, warmup_rollouts
from prism.evals.statistics import Interval, mean_interval
from prism.report.ablation import read_listing
from prism.report.ablation_checkpoints import averaged
from prism.report.budgets import rollouts_of
from prism.report.plots import signed_points
from prism.report.results import ACCURACIES, DESCRIPTIONS, MODES, ItemMeans, gain_over_seeds, item_means, paired_gain
from prism.report.rundir import Row, Run, Stage, read_run
from prism.report.statistics import Estimate, over_seeds
from prism.report.tables import interval_text as limits_text

PART = 10
"""Steps of alignment that are reported together."""
IN_DISTRIBUTION, OUT_OF_DISTRIBUTION, OVERALL = ACCURACIES
COLUMNS = {"all": OVERALL, "in": IN_DISTRIBUTION, "out": OUT_OF_DISTRIBUTION, "exact descriptions": DESCRIPTIONS[0]}

Answers = Mapping[int, ItemMeans]
"""seed → what one policy, or several on average, answered"""


@dataclass(frozen=True)
class Arm:
    """One cell of the experiment."""

    name: str
    run: Run

    @property
    def is_aligned(self) -> bool:
        return self.run.recipe.align is not None

    @property
    def start(self) -> str:
        """The stage that RLVR starts from."""
        return "align" if self.is_aligned else policy_before_alignment(self.run.recipe)

    @cached_property
    def trained(self) -> dict[str, str]:
        """algorithm → the stage of RLVR by it"""
        stages = [stage for stage in plan_stages(self.run.recipe) if stage.algorithm is not None]
        return {stage.algorithm.name: stage.name for stage in stages if stage.start == self.start}

    def starting(self, mode: str) -> Answers:
        """What the policy that RLVR starts from answered."""
        return self.answers.get((self.start, mode), {})

    @cached_property
    def policies(self) -> list[str]:
        """The evaluated stages after SFT, which all arms share; the base before it knows no format."""
        return [name for name in self.run.evaluated_names if name not in ("base", "sft")]

    @cached_property
    def answers(self) -> dict[tuple[str, str], Answers]:
        """(stage, mode) → what the seeds that have it answered"""
        return {
            (name, mode): {s.seed: item_means(s, mode) for s in self.run.over_seeds(name) if s.summary}
            for name in self.run.evaluated_names
            for mode in MODES
        }

    def mean_answers(self, names: Sequence[str], mode: str) -> Answers:
        """Over several algorithms, question by question, of the seeds that have all."""
        found = [self.answers.get((self.trained[name], mode), {}) for name in names]
        complete = [seed for seed in found[0] if all(seed in each for each in found)] if found else []
        return {seed: averaged([each[seed] for each in found]) for seed in complete}


def tables(united: Path) -> list[str]:
    """Raises SystemExit where the reference has no alignment, whose game, rollouts and drift are shown."""
    arms = read_arms(united)
    parts = (seed_lines, description_lines, worth_lines, pair_lines, budget_lines, drift_lines, game_lines)
    return [line for part in parts for line in part(arms)]


def read_arms(united: Path) -> list[Arm]:
    """The reference first, then those without alignment."""
    reference = read_listing(united).reference
    arms = [Arm(cell.name, read_run(cell)) for cell in sorted((united / CELLS).iterdir())]
    first, *others = sorted(arms, key=lambda arm: (arm.name != reference, arm.is_aligned))
    if first.name != reference or not first.is_aligned:
        raise SystemExit(f"{united}: the reference {reference} has not been run, or has no alignment: choose another")
    return [first, *others]


def seeds_of(arms: Sequence[Arm]) -> list[int]:
    """Those that any of the arms has."""
    return sorted({seed for arm in arms for seed in arm.run.seeds})


def seed_lines(arms: Sequence[Arm]) -> list[str]:
    """Percent right after every stage, seed by seed."""
    seeds = seeds_of(arms)
    lines = ["", table_row("right, all sub-benchmarks: greedy, sampled", [*(f"seed {seed}" for seed in seeds), "mean"])]
    for arm in arms:
        for name in (["sft"] if arm is arms[0] else []) + arm.policies:
            found = {stage.seed: stage.summary["average"]["all"] for stage in arm.run.over_seeds(name) if stage.summary}
            right = {seed: [of[mode]["accuracy"]["mean"] for mode in MODES] for seed, of in found.items()}
            means = [fmean(column) for column in zip(*right.values(), strict=True)]
            shown = [percents(right[seed]) if seed in right else "–" for seed in seeds]
            lines.append(table_row(f"  {arm.name}: {name}", [*shown, percents(means)]))
    return lines


def description_lines(arms: Sequence[Arm]) -> list[str]:
    """What a right description is worth: percent right of the responses whose description is without a mistake, and of
    the others, on questions out of distribution."""
    seeds = seeds_of(arms)
    lines = ["", "right out of distribution where the description is without a mistake; where it is not"]
    for mode in MODES:
        lines.append(table_row(f"  {mode}", [f"seed {seed}" for seed in seeds], width=26))
        for arm in arms:
            for name in arm.policies:
                found = {stage.seed: by_description(stage, mode) for stage in arm.run.over_seeds(name) if stage.items}
                shown = [found.get(seed, "–") for seed in seeds]
                lines.append(table_row(f"    {arm.name}: {name}", shown, width=26))
    return lines


def by_description(stage: Stage, mode: str) -> str:
    right: dict[bool, list[float]] = {True: [], False: []}
    for item in stage.items or ():
        if (item.mode, item.group) == (mode, OUT_OF_DISTRIBUTION.scope):
            right[item.values["caption_exact"] == 1].append(item.values["accuracy"] or 0.0)
    return "; ".join(f"{100 * fmean(found):.0f}% of {len(found)}" if found else "–" for found in right.values())


def table_row(head: str, columns: Sequence[str], width: int = 12) -> str:
    return f"{head:44}" + "".join(f"{column:>{width}}" for column in columns)


def percents(shares: Sequence[float]) -> str:
    return ", ".join(f"{100 * share:.1f}" for share in shares)


def worth_lines(arms: Sequence[Arm]) -> list[str]:
    """The first arm less each other one, seed by seed: before RLVR, after it over the algorithms that both have, and by
    each of them."""
    first, *others = arms
    lines = ["", "seed by seed, points; the mean with 95% limits over seeds and questions"]
    for other in others:
        shared = [name for name in first.trained if name in other.trained]
        seeds = [seed for seed in first.run.seeds if seed in other.run.seeds]
        for mode in MODES:
            lines.append(worth_row(f"  {first.name} less {other.name}, {mode}", [f"seed {s}" for s in seeds], "mean"))
            pairs = {f"before RLVR: {first.start} less {other.start}": (first.starting(mode), other.starting(mode))}
            for names in ([shared] if len(shared) > 1 else []) + [[name] for name in shared]:
                title = names[0] if len(names) == 1 else f"mean of {', '.join(names)}"
                pairs[title] = (first.mean_answers(names, mode), other.mean_answers(names, mode))
            for (title, (ours, theirs)), (scope, column) in product(pairs.items(), COLUMNS.items()):
                both = [seed for seed in seeds if seed in ours and seed in theirs]
                gains = {seed: paired_gain(ours[seed], theirs[seed], column) for seed in both}
                known = [gain for gain in gains.values() if gain is not None]
                shown = [signed_points(gain.mean) if (gain := gains.get(seed)) else "–" for seed in seeds]
                lines.append(worth_row(f"    {title}: {scope}", shown, with_limits(over_seeds(known))))
    return lines


def worth_row(head: str, columns: Sequence[str], last: str) -> str:
    return f"{head:52}" + "".join(f"{column:>9}" for column in columns) + f"   {last}"


def with_limits(gain: Estimate | None) -> str:
    """Of two seeds as well, for whom the report shows their values alone."""
    return f"{signed_points(gain.mean)} {limits_text(replace(gain, by_seed=()), signed=True)}" if gain else "–"


def pair_lines(arms: Sequence[Arm]) -> list[str]:
    """Every arm less every later one: what RLVR starts from, and after RLVR the mean over the algorithms both have."""
    lines = ["", "an arm less another, points"]
    for mode in MODES:
        lines.append(f"  before RLVR, {mode}")
        starts = {arm.name: arm.starting(mode) for arm in arms}
        lines += [
            f"    {arm.name} less SFT: {differences(starts[arm.name], arm.answers['sft', mode])}"
            for arm in arms
            if arm.is_aligned
        ]
        lines += [
            f"    {one.name} less {other.name}: {differences(starts[one.name], starts[other.name])}"
            for one, other in combinations(filter(lambda arm: arm.is_aligned, arms), 2)
        ]
        lines.append(f"  after RLVR, {mode}")
        for one, other in combinations(arms, 2):
            shared = [name for name in one.trained if name in other.trained]
            gains = differences(one.mean_answers(shared, mode), other.mean_answers(shared, mode))
            lines.append(f"    {one.name} less {other.name}, {', '.join(shared)}: {gains}")
    return lines


def differences(ours: Answers, theirs: Answers) -> str:
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    gains = {title: gain_over_seeds(pairs, column) for title, column in COLUMNS.items()}
    return ", ".join(
        f"{title} {signed_points(gain.mean)} {limits_text(gain, signed=True)}" if gain else f"{title} –"
        for title, gain in gains.items()
    )


def budget_lines(arms: Sequence[Arm]) -> list[str]:
    """Rollouts that each arm sampled, means over seeds, and what the aligned policies are ahead before any RLVR.

    The warm-up's rollouts count: a baseline of as many steps as alignment and RLVR have together has fewer.
    """
    first, controls = arms[0], [arm for arm in arms if not arm.is_aligned]
    aligned = warmup_rollouts(first.run.recipe) + sampled(first, "align")
    found = [f"{name} {aligned + sampled(first, stage):,.0f}" for name, stage in first.trained.items()]
    lines = ["", "rollouts sampled, means over seeds, those that dynamic sampling discards included"]
    lines.append(f"  {first.name}: warm-up and alignment {aligned:,.0f}, with RLVR {', '.join(found)}")
    for arm in controls:
        found = [f"{name} {sampled(arm, stage):,.0f}" for name, stage in arm.trained.items()]
        lines.append(f"  {arm.name}: {', '.join(found)}; PRISM without RLVR less this arm after RLVR, points")
        for mode in MODES:
            gains = differences(first.answers["align", mode], arm.mean_answers(list(arm.trained), mode))
            lines.append(f"    {mode}: {gains}")
    return lines


def sampled(arm: Arm, name: str) -> float:
    """Rollouts of a stage, those included that dynamic sampling discards; the mean over its seeds."""
    counts = [rollouts_of(arm.run, stage) for stage in arm.run.over_seeds(name)]
    known = [count for count in counts if count is not None]
    return fmean(known) if known else 0.0


def drift_lines(arms: Sequence[Arm]) -> list[str]:
    """How near each policy is to the teacher, by the measures of distance that SFT moved, over all seeds; then that of
    the reference after alignment, seed by seed.

    A measure counts as moved where its distance after SFT is above its floor, up to which it cannot be told from none.
    """
    lines = [
        "",
        "distance to the teacher, of the measures that SFT moved: how many are smaller than after SFT, how many",
    ]
    lines.append("of these up to their floor, and what is left of the distance, the median of the measures")
    for mode in MODES:
        for arm in arms:
            lines += [f"  {mode}, {arm.name}: {name}: {drift_summary(arm, name, mode)}" for name in arm.policies]
    lines += ["", "distance to the teacher after SFT and after alignment; * is up to its floor"]
    for seed in arms[0].run.seeds:
        # A game that failed left no policy.
        if (seed, "align") in arms[0].run.stages:
            lines += seed_drift(arms[0].run, seed)
    return lines


def drift_summary(arm: Arm, name: str, mode: str) -> str:
    left, num_at_floor = [], 0
    for stage in arm.run.over_seeds(name):
        first = summary_of(arm.run, stage.seed, "sft")["drift"][mode]
        second = summary_of(arm.run, stage.seed, name)["drift"][mode]
        for measure in filter(lambda measure: is_above_floor(first[measure]), first):
            left.append(second[measure]["mean"] / first[measure]["mean"])
            num_at_floor += not is_above_floor(second[measure])
    if not left:
        return "SFT moved none"
    num_closer = sum(share < 1 for share in left)
    return f"{num_closer} of {len(left)} smaller, {num_at_floor} up to the floor, left {median(left):.1%}"


def seed_drift(run: Run, seed: int) -> Iterator[str]:
    sft, aligned = summary_of(run, seed, "sft"), summary_of(run, seed, "align")
    for mode in MODES:
        first, second = sft["drift"][mode], aligned["drift"][mode]
        exact = [100 * each["average"]["all"][mode]["caption_exact"]["mean"] for each in (sft, aligned)]
        yield f"  seed {seed}, {mode}; descriptions without a mistake {exact[0]:.1f}%, {exact[1]:.1f}%"
        yield from (f"    {name}: {distance_text(first[name])}, {distance_text(second[name])}" for name in first)


def summary_of(run: Run, seed: int, name: str) -> Row:
    summary = run.stages[seed, name].summary
    if summary is None:
        raise SystemExit(f"{run.directory}: seed {seed} has no evaluation of {name}: run it again")
    return summary


def is_above_floor(distance: Mapping[str, float]) -> bool:
    return distance["plug_in"] > distance["floor"]


def distance_text(distance: Mapping[str, float]) -> str:
    return f"{distance['mean']:.4f}{'' if is_above_floor(distance) else '*'}"


def game_lines(arms: Sequence[Arm]) -> list[str]:
    """What each arm's rollouts are worth while its game is played, by parts of `PART` steps: the answers of
    all 64 a step, the descriptions of the valid ones.

    Means over seeds; of the others less the reference's, with 95% intervals over seeds.
    """
    first, *others = [arm for arm in arms if arm.is_aligned]
    games = [stage.metrics for stage in first.run.over_seeds("align")]
    lines = ["", f"rollouts of the game, points; the reference's, and the others' less those, {len(games)} seeds"]
    for start in range(0, min(map(len, games), default=0), PART):
        lines.append(f"  steps {start + 1} to {start + PART}")
        for metric in ("reward/accuracy", "reward/caption_exact"):
            own = means_from(first, metric, start)
            found = [f"{first.name} {fmean(own.values()):.1f}"]
            for arm in others:
                means = means_from(arm, metric, start)
                less = mean_interval({str(seed): [mean - own[seed]] for seed, mean in means.items() if seed in own})
                found.append(f"{arm.name} {interval_text(less)}")
            lines.append(f"    {metric}: {', '.join(found)}")
    return lines


def interval_text(interval: Interval) -> str:
    mean, low, high = interval.mean or 0.0, interval.low, interval.high
    limits = "no limits" if low is None or high is None else f"{low:.1f}, {high:.1f}"
    return f"{mean:+.1f} [{limits}]"


def means_from(arm: Arm, metric: str, start: int) -> dict[int, float]:
    """Means of each seed over the part of the game that begins behind step `start`, in percent."""
    found = {
        stage.seed: [row[metric] for row in stage.metrics[start : start + PART] if row[metric] is not None]
        for stage in arm.run.over_seeds("align")
    }
    return {seed: 100 * fmean(values) for seed, values in found.items() if values}
