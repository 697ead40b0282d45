import io

from rich.console import Console

from prism.runtime.progress import StepProgress, say


class _Console(Console):
    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), width=20)

    def text(self) -> str:
        assert isinstance(self.file, io.StringIO)
        return self.file.getvalue()


def _run(console: _Console, num_steps: int, **kwargs) -> str:
    with StepProgress("sft", num_steps, console=console, **kwargs) as progress:
        for step in range(kwargs.get("start", 0) + 1, num_steps + 1):
            values = {"loss/nll": 1.0 / step, "loss/dev_nll": None, "grad": 2.0, "rate": 3.0}
            progress.update(step, values, seconds=2.0, tokens=300)
    return console.text()


def test_plain_lines_every_n_steps_and_at_the_end():
    text = _run(_Console(), 7, every=3)
    assert text.splitlines() == [
        "sft 3/7  loss/nll 0.3333  grad 2  150 tokens/s  0:00:08 left",
        "sft 6/7  loss/nll 0.1667  grad 2  150 tokens/s  0:00:02 left",
        "sft 7/7  loss/nll 0.1429  grad 2  150 tokens/s  0:00:00 left",
    ]


def test_named_metrics_only():
    assert _run(_Console(), 1, metrics=("rate",)) == "sft 1/1  rate 3  150 tokens/s  0:00:00 left\n"


def test_a_long_run_prints_about_fifty_lines():
    assert len(_run(_Console(), 5000).splitlines()) == 50


def test_speed_follows_the_latest_steps():
    progress = StepProgress("x", 10_000, console=_Console())
    for step in range(1, 31):
        progress.update(step, {}, seconds=100.0, tokens=1)
    for step in range(31, 51):
        progress.update(step, {}, seconds=0.5, tokens=100)
    assert progress.status(50, {}) == "200 tokens/s  1:22:55 left"


def test_a_terminal_gets_a_bar_that_starts_where_the_run_resumed():
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    with StepProgress("sft", 10, start=8, console=console) as progress:
        assert progress._bar is not None
        assert progress._bar.tasks[0].completed == 8
        progress.update(9, {"loss": 0.25}, seconds=1.0)
        assert progress._bar.tasks[0].completed == 9
    assert "loss 0.25" in screen.getvalue()


def test_lines_are_neither_wrapped_nor_marked_up():
    console = _Console()
    say(console, "a [bold]long[/bold] line with /paths/and/everything in it")
    assert console.text() == "a [bold]long[/bold] line with /paths/and/everything in it\n"
