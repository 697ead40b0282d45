"""How data rows name their images: paths, embedded bytes, base64 text, data URIs."""

import base64
import binascii
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prism.data.rejects import RowError
from prism.records import ImageSource

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"\xff\xd8\xff", ".jpg"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    (b"BM", ".bmp"),
    (b"II*\x00", ".tif"),
    (b"MM\x00*", ".tif"),
)
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_MIN_BASE64_CHARACTERS = 64
"""Bare base64 begins like a path (JPEG's is "/9j/"): shorter than this it is taken for one."""


def image_suffix(data: bytes) -> str | None:
    """The file suffix that belongs to the encoded image, by its first bytes; None for an unknown format."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for signature, suffix in _SIGNATURES if data.startswith(signature)), None)


def resolve_images(value: object, image_root: Path, field: str = "images") -> tuple[ImageSource, ...]:
    """The images of one row, given as nothing, one reference or a list of them. Raises RowError."""
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(resolve_image(item, image_root, field) for item in value)
    return (resolve_image(value, image_root, field),)


def resolve_image(value: object, image_root: Path, field: str = "images") -> ImageSource:
    """One image from a path, bytes, base64 text, data URI, file URI or a mapping of `bytes`, `path`, `image`, `url`.

    A relative path must stay inside `image_root`; an absolute one is taken as it is. The file must exist.
    Nothing is fetched: http and other remote addresses raise RowError.
    """
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("bytes", "path", "image", "url") if value.get(key)), None)
        if value is None:
            raise RowError(field, "has an entry with neither bytes nor path")
    if isinstance(value, bytes):
        return _from_bytes(value, field)
    if not isinstance(value, str):
        raise RowError(field, "has an entry that is not an image reference", type(value).__name__)
    if value.startswith("data:"):
        return _from_data_uri(value, field)
    return _from_bare_base64(value) or _from_path(value, image_root, field)


def _from_bytes(data: bytes, field: str) -> ImageSource:
    if not data:
        raise RowError(field, "has an empty image")
    return ImageSource(data=data)


def _from_data_uri(uri: str, field: str) -> ImageSource:
    header, _, payload = uri.partition(",")
    data = _decode_base64(payload) if header.endswith(";base64") else None
    if data is None:
        raise RowError(field, "has a data URI that is not base64", _shortened(header))
    return _from_bytes(data, field)


def _from_bare_base64(text: str) -> ImageSource | None:
    if len(text) < _MIN_BASE64_CHARACTERS:
        return None
    data = _decode_base64(text)
    return ImageSource(data=data) if data and image_suffix(data) else None


def _decode_base64(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _from_path(text: str, image_root: Path, field: str) -> ImageSource:
    path = Path(_local_path(text, field))
    if not path.is_absolute():
        # Compared as written, without following links: caches of downloaded data sets link their files elsewhere.
        inside = os.path.normpath(path)
        if inside.split(os.sep)[0] == os.pardir:
            raise RowError(field, "points outside the image directory", _shortened(text))
        path = image_root / inside
    try:
        exists = path.is_file()
    except OSError:
        exists = False  # a name too long for the file system names no file
    if not exists:
        raise RowError(field, "names a file that does not exist", _shortened(str(path)))
    return ImageSource(path=path)


def _local_path(text: str, field: str) -> str:
    scheme = _SCHEME.match(text)
    if scheme is None:
        return text
    try:
        address = urlsplit(text)
    except ValueError as error:
        raise RowError(field, "has an address that is none", f"{_shortened(text)}: {error}") from None
    if address.scheme == "file" and address.netloc in ("", "localhost"):
        return unquote(address.path)
    raise RowError(field, "has a remote address; download the image and name the file", _shortened(text))


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
