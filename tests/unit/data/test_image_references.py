"""The ways rows name images, with Pillow as the independent maker of encoded images."""

import base64
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from prism.data.image_references import image_suffix, resolve_image, resolve_images
from prism.data.rejects import RowError
from prism.records import ImageSource


def encoded(kind: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (8, 6), (200, 30, 60)).save(stream, kind)
    return stream.getvalue()


PNG = encoded("PNG")
PNG_TEXT = base64.b64encode(PNG).decode()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data" / "deep").mkdir(parents=True)
    (tmp_path / "data" / "deep" / "a b.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif"), ("BMP", ".bmp"), ("TIFF", ".tif"), ("WEBP", ".webp")],
)
def test_the_suffix_follows_the_encoding(kind: str, suffix: str) -> None:
    assert image_suffix(encoded(kind)) == suffix


def test_an_unknown_encoding_has_no_suffix() -> None:
    assert image_suffix(b"RIFF....WAVEfmt ") is None


@pytest.mark.parametrize(
    "reference",
    [
        PNG,
        PNG_TEXT,
        f"data:image/png;base64,{PNG_TEXT}",
        f"data:image;base64,{PNG_TEXT[:40]}\n{PNG_TEXT[40:]}",
        {"bytes": PNG, "path": "never/looked/at.png"},
        {"bytes": None, "path": None, "image": PNG},
        {"url": f"data:image/png;base64,{PNG_TEXT}"},
    ],
)
def test_embedded_images_are_held_as_their_bytes(reference: object, root: Path) -> None:
    assert resolve_image(reference, root) == ImageSource(data=PNG)


@pytest.mark.parametrize(
    "reference", ["deep/a b.png", "./deep/../deep/a b.png", {"path": "deep/a b.png"}, {"image": "deep/a b.png"}]
)
def test_relative_paths_start_at_the_image_root(reference: object, root: Path) -> None:
    assert resolve_image(reference, root) == ImageSource(path=root / "deep" / "a b.png")


def test_absolute_paths_and_file_uris_are_taken_as_they_are(root: Path) -> None:
    elsewhere = root.parent / "secret.png"
    assert resolve_image(str(elsewhere), root) == ImageSource(path=elsewhere)
    assert resolve_image((root / "deep" / "a b.png").as_uri(), root) == ImageSource(path=root / "deep" / "a b.png")


def test_links_below_the_root_are_followed(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    assert resolve_image("link.png", root) == ImageSource(path=root / "link.png")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("missing.png", "names a file that does not exist"),
        ("", "names a file that does not exist"),
        ("deep", "names a file that does not exist"),
        ("x" * 5000, "names a file that does not exist"),
        ("nul\0byte.png", "names a file that does not exist"),
        ("../secret.png", "points outside the image directory"),
        ("deep/../../secret.png", "points outside the image directory"),
        ("https://example.org/a.png", "has a remote address; download the image and name the file"),
        ("s3://bucket/a.png", "has a remote address; download the image and name the file"),
        ("file://server/share/a.png", "has a remote address; download the image and name the file"),
        ("http://[x/a.png", "has an address that is none"),
        ({"url": "http://example.org/a.png"}, "has a remote address; download the image and name the file"),
        ("data:image/png;base64,***", "has a data URI that is not base64"),
        ("data:image/svg+xml,%3Csvg%3E", "has a data URI that is not base64"),
        ("data:image/png;base64,", "has an empty image"),
        (b"", "has an empty image"),
        ({"bytes": None, "path": None}, "has an entry with neither bytes nor path"),
        (None, "has an entry that is not an image reference"),
        (7, "has an entry that is not an image reference"),
    ],
)
def test_unusable_references_are_refused_with_their_reason(reference: object, reason: str, root: Path) -> None:
    with pytest.raises(RowError) as caught:
        resolve_image(reference, root, "images")
    assert (caught.value.field, caught.value.reason) == ("images", reason)


def test_a_row_has_no_image_one_or_several(root: Path) -> None:
    one = ImageSource(path=root / "deep" / "a b.png")
    assert resolve_images(None, root) == ()
    assert resolve_images([], root) == ()
    assert resolve_images("deep/a b.png", root) == (one,)
    assert resolve_images([PNG, "deep/a b.png"], root) == (ImageSource(data=PNG), one)
