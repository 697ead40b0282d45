"""Pictures inside a page, from below one directory only."""

import base64
from pathlib import Path

from prism.report.markup import Html, element

_LARGEST_IMAGE = 2_000_000
_SIGNATURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def embedded_image(directory: Path, name: str, *, root: Path, place: str) -> Html:
    """The image `name` below `directory` inside the page; in words where it cannot be.

    Nothing outside `root`, which readers know as `place`, is read.
    """
    path = (directory / name).resolve()
    if not path.is_relative_to(root.resolve()):
        return element("p", f"The image lies outside {place} and is not shown.", class_="absent")
    if not path.is_file():
        return element("p", f"The image {name} is missing.", class_="absent")
    if path.stat().st_size > _LARGEST_IMAGE:
        return element("p", f"The image {name} is too large to embed.", class_="absent")
    data = path.read_bytes()
    kind = next((kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)), None)
    if kind is None:
        return element("p", f"The image {name} is neither PNG nor JPEG and is not shown.", class_="absent")
    return element("img", src=f"data:{kind};base64,{base64.b64encode(data).decode()}", alt="The image of the question")
