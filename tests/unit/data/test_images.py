"""Image reading and sizing. Reference for sizes: the resizing rule of Hugging Face's Qwen image processor."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from prism.data.images import fit_to_grid, grid_size, image_hash, image_size, open_image
from prism.errors import DataError
from prism.records import ImageSource


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> ImageSource:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return ImageSource(data=buffer.getvalue())


def gradient(width: int = 24, height: int = 16) -> Image.Image:
    columns, rows = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([columns * 9, rows * 13, columns + rows], axis=-1).astype(np.uint8))


def test_pixels_survive_reading() -> None:
    image = gradient()
    assert np.array_equal(np.asarray(open_image(encode(image))), np.asarray(image))


def test_file_and_bytes_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    gradient().save(path)
    from_path, from_bytes = open_image(ImageSource(path=path)), open_image(ImageSource(data=path.read_bytes()))
    assert from_path.tobytes() == from_bytes.tobytes()


def test_transparency_is_flattened_on_white() -> None:
    image = Image.new("RGBA", (2, 1))
    image.putpixel((0, 0), (10, 20, 30, 0))
    image.putpixel((1, 0), (100, 0, 0, 128))
    opened = open_image(encode(image))
    assert opened.mode == "RGB"
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    # 100·(128/255) + 255·(127/255) = 177.2 and 255·(127/255) = 127
    assert np.abs(np.asarray(opened)[0, 1].astype(int) - (177, 127, 127)).max() <= 1


def test_palette_transparency_is_flattened_on_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.putpixel((1, 0), 1)
    opened = open_image(encode(image, transparency=0))
    assert [opened.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 10, 10)]


def test_exif_rotation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown rotated by 90° clockwise
    opened = open_image(encode(gradient(), exif=exif))
    assert np.array_equal(np.asarray(opened), np.rot90(np.asarray(gradient()), k=-1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_head_tells_the_size_of_the_upright_image(kind: str, orientation: int | None) -> None:
    options = {}
    if orientation is not None and kind not in ("GIF", "BMP", "PPM"):
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    source = encode(gradient(24, 16), kind, **options)
    assert image_size(source) == open_image(source).size
    assert image_size(source) == ((16, 24) if options and orientation in (6, 8) else (24, 16))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_xmp_turns_an_image_as_exif_does(kind: str) -> None:
    xmp = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    if kind == "PNG":
        metadata = PngInfo()
        metadata.add_itxt("XML:com.adobe.xmp", xmp, zip=True)
        source = encode(gradient(24, 16), kind, pnginfo=metadata)
    else:
        source = encode(gradient(24, 16), kind, xmp=xmp.encode())
    assert image_size(source) == open_image(source).size == (16, 24)


def test_a_png_turned_behind_its_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain, turned = encode(gradient(24, 16)).data or b"", encode(gradient(24, 16), exif=exif).data or b""
    start = turned.index(b"eXIf") - 4
    length = int.from_bytes(turned[start : start + 4], "big")
    chunk = turned[start : start + length + 12]
    behind = plain.index(b"IEND") - 4
    source = ImageSource(data=plain[:behind] + chunk + plain[behind:])
    assert image_size(source) == open_image(source).size == (16, 24)


@pytest.mark.parametrize("keyword", ["exif", "Raw profile type exif", "Comment"])
def test_a_png_turned_by_a_text(keyword: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    raw = exif.tobytes()
    text = raw.decode("latin-1") if keyword == "exif" else f"\nexif\n{len(raw):8d}\n{raw.hex()}\n"
    metadata = PngInfo()
    metadata.add_text(keyword, text)
    source = encode(gradient(24, 16), pnginfo=metadata)
    assert image_size(source) == open_image(source).size == ((24, 16) if keyword == "Comment" else (16, 24))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_no_more_than_the_head_is_read_for_the_size(kind: str) -> None:
    whole = encode(gradient(200, 150), kind).data or b""
    cut = ImageSource(data=whole[: len(whole) * 9 // 10])
    assert image_size(cut) == (200, 150)
    with pytest.raises(DataError, match="embedded image"):
        open_image(cut)
    with pytest.raises(DataError, match="embedded image"):
        image_size(ImageSource(data=whole[:10]))


def test_sixteen_bit_grey_keeps_its_range() -> None:
    values = np.array([[0, 257 * 64, 257 * 128, 65535]], dtype=np.uint16)
    opened = open_image(encode(Image.fromarray(values)))
    assert np.asarray(opened)[0, :, 0].tolist() == [0, 64, 128, 255]


def test_float_pixels_are_refused() -> None:
    with pytest.raises(DataError, match="32-bit"):
        open_image(encode(Image.new("F", (4, 4)), "TIFF"))


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png"):
        open_image(ImageSource(path=tmp_path / "gone.png"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
def test_truncated_file_is_named(tmp_path: Path, kind: str) -> None:
    whole = encode(gradient(200, 150), kind).data
    assert whole is not None
    path = tmp_path / "cut.img"
    for share in (0.02, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DataError, match=r"cut\.img"):
            open_image(ImageSource(path=path))


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9"]
)
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="embedded image"):
        open_image(ImageSource(data=content))


def test_flipped_bits_are_refused() -> None:
    whole = bytearray(encode(gradient(60, 60)).data or b"")
    whole[len(whole) // 2] ^= 0xFF
    with pytest.raises(DataError, match="broken image"):
        open_image(ImageSource(data=bytes(whole)))


@pytest.mark.parametrize("side", [9_000, 20_000, 2**31 - 1])
def test_decompression_bomb_is_refused_before_decoding(side: int) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(DataError, match="pixels"):
        open_image(ImageSource(data=bomb))


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([8, 28, 32]))
def test_size_is_the_processors_and_final(width: int, height: int, factor: int) -> None:
    limits = {"factor": factor, "min_pixels": 16 * factor**2, "max_pixels": 400 * factor**2}
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(DataError, match="factor of 200"):
            grid_size(width, height, **limits)
        return
    resized = smart_resize(height, width, **limits)
    if max(resized) > 200 * min(resized):  # 9 by 1605 pixels become 1 by 201 cells
        with pytest.raises(DataError, match="factor of 200"):
            grid_size(width, height, **limits)
        return
    size = grid_size(width, height, **limits)
    assert size[::-1] == resized
    assert size[::-1] == smart_resize(size[1], size[0], **limits)
    assert size[0] % factor == size[1] % factor == 0
    assert limits["min_pixels"] <= size[0] * size[1] <= limits["max_pixels"]


def test_an_image_that_rounding_makes_too_narrow_is_refused() -> None:
    with pytest.raises(DataError, match="9x1605 image: sides differ by more than a factor of 200"):
        grid_size(9, 1605, factor=8, min_pixels=64, max_pixels=10**6)


def test_size_within_the_limits_by_hand() -> None:
    limits = {"factor": 32, "min_pixels": 64 * 64, "max_pixels": 512 * 512}
    assert grid_size(200, 100, **limits) == (192, 96)  # 6.25 and 3.125 cells
    assert grid_size(2000, 1000, **limits) == (704, 352)  # 262144 px at 2:1 is 724.1 x 362.0: 22 and 11 cells
    assert grid_size(10, 10, **limits) == (64, 64)


def test_impossible_budget_is_an_error_not_another_resize_later() -> None:
    with pytest.raises(DataError, match="max_pixels=576"):
        grid_size(100, 50, factor=8, min_pixels=576, max_pixels=576)
    assert grid_size(30, 30, factor=8, min_pixels=576, max_pixels=576) == (24, 24)


def test_image_of_final_size_is_untouched() -> None:
    image = gradient(64, 32)
    assert fit_to_grid(image, factor=32, min_pixels=1024, max_pixels=4096).tobytes() == image.tobytes()


def test_resizing_keeps_a_constant_colour() -> None:
    fitted = fit_to_grid(Image.new("RGB", (333, 77), (12, 200, 90)), factor=32, min_pixels=1024, max_pixels=8192)
    assert fitted.getcolors() == [(fitted.width * fitted.height, (12, 200, 90))]


def test_hash_is_of_pixels() -> None:
    image = gradient()
    same = image_hash(encode(image, "PNG")) == image_hash(encode(image, "BMP"))
    changed = image.copy()
    changed.putpixel((3, 3), (1, 2, 3))
    assert same
    assert image_hash(encode(changed)) != image_hash(encode(image))
    assert image_hash(encode(Image.new("RGB", (2, 8)))) != image_hash(encode(Image.new("RGB", (8, 2))))
