"""The page in a real browser. Deselected by default, since not every machine has Chromium: run with -m browser."""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from prism.report import render_report

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--enable-logging=stderr", "--window-size=1280,1600",
)  # fmt: skip


def screenshot(page: Path, target: Path, scheme: int) -> str:
    """Takes a screenshot in the colour scheme (0 dark, 1 light) and returns what the browser logged."""
    assert CHROMIUM is not None
    profile = target.with_suffix(".profile")
    options = [
        f"--user-data-dir={profile}",
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={target}",
    ]
    done = subprocess.run(
        [CHROMIUM, *FLAGS, *options, page.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stderr


@pytest.mark.parametrize(("scheme", "darkest", "lightest"), [(1, 240, 255), (0, 0, 40)])
def test_it_is_styled_without_a_word_on_the_console(
    full_run: Path, tmp_path: Path, scheme: int, darkest: int, lightest: int
) -> None:
    page = render_report(full_run, tmp_path / "report.html")
    log = screenshot(page, tmp_path / "page.png", scheme)
    assert "CONSOLE" not in log, log
    with Image.open(tmp_path / "page.png") as image:
        pixels = image.convert("L")
        corner = pixels.getpixel((2, 2))
        shades = pixels.getcolors()
    assert isinstance(corner, int) and darkest <= corner <= lightest
    assert shades is not None and len(shades) > 50, "text and charts, not an empty page"
