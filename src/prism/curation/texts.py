"""What a text may hold, whether it was imported or a model wrote it."""

from prism.curation.active_html import has_active_html
from prism.data.formats.fields import read_response_text
from prism.data.rejects import RowError


def check_text(text: str, name: str) -> None:
    """Raises RowError."""
    if "\x00" in text:
        raise RowError(name, "has a NUL character")
    if has_active_html(text):
        raise RowError(name, "has HTML that a browser would run")


def check_response(text: str, name: str) -> None:
    """As `check_text`, with what every reader asks of a response: exported, it must come back. Raises RowError."""
    read_response_text(text, name)
    check_text(text, name)
