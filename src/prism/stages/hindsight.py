"""What a game that was played to its end shows in hindsight: views in which alignment had nothing to go by.

No limit stops such a game, since every step of it looks healthy: a discriminator that still tells the rollouts apart
late in the game does so in a healthy one as well. It is the change that tells. While alignment works, rollouts come
closer to the teacher's responses and the discriminator, which learns meanwhile, tells fewer of them apart.

The limits were set between games of the built-in world that helped and games that did harm (`docs/method.md`).
"""

from collections.abc import Iterator, Sequence

from prism.stages.collapse import COUNT, Diagnosis, Row, pooled, views_of_row

MIN_STEPS = 20
"""Of a shorter game no change can be expected."""
WINDOW_SHARE = 5
"""The first and the last fifth of the steps are compared."""
MIN_PAIRS = 128
"""Valid pairs in each fifth; over fewer an accuracy is too uncertain, its standard error being 0.04 and more."""
BLIND, SEEING = 0.55, 0.7
"""Up to the one accuracy in the first fifth the discriminator tells nothing, from the other on it has learned to tell.

One between them may still be learning what its warm-up did not teach it, and whatever it tells more of says nothing
about the rollouts.
"""
LEAST_FALL = 0.05


def look_back(rows: Sequence[Row]) -> list[Diagnosis]:
    """What there is to warn of after all steps of a game; `rows` are its metrics, one row a step."""
    if len(rows) < MIN_STEPS:
        return []
    size = len(rows) // WINDOW_SHARE
    first, last = rows[:size], rows[-size:]
    if min(sum(int(row[COUNT] or 0) for row in part) for part in (first, last)) < MIN_PAIRS:
        return []
    return [found for view in views_of_row(rows[-1]) for found in _of_view(view, first, last)]


def _of_view(view: str, first: Sequence[Row], last: Sequence[Row]) -> Iterator[Diagnosis]:
    accuracies, gaps = ([pooled(part, f"{name}/{view}")[0] for part in (first, last)] for name in ("accuracy", "gap"))
    (told, still_told), (gap, last_gap) = accuracies, gaps
    if told is None or still_told is None or gap is None or last_gap is None:
        return
    if told <= BLIND:
        yield Diagnosis(
            "discriminator-blind",
            f"{view}: accuracy {told:.3f} in {_steps(first)}, no better than chance, so its scores were noise to the "
            "policy; warm up for longer, check that images and texts reach the discriminator, or leave this view's "
            "advantage out",
        )
    elif told >= SEEING and still_told > told - LEAST_FALL and last_gap > gap:
        yield Diagnosis(
            "rollouts-not-closer",
            f"{view}: accuracy {told:.3f} in {_steps(first)} and {still_told:.3f} in {_steps(last)}, while the score "
            f"gap grew from {gap:.3g} to {last_gap:.3g}; the policy follows scores that do not bring it closer to the "
            "teacher: compare its evaluation with that of SFT before going on, audit the run (prism audit), lower "
            "align.policy_learning_rate or leave alignment out",
        )


def _steps(rows: Sequence[Row]) -> str:
    return f"steps {rows[0]['step']}–{rows[-1]['step']}"
