from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow

from media import png, png_that_claims, saved
from tidemill.core.errors import BadMedia
from tidemill.core.tensor import Array
from tidemill.steps.chain import build
from tidemill.steps.image import Normalise, Resize, decode
from tidemill.steps.step import Bounds, Place


def run(data: bytes, *tables: dict[str, Any], pixels_max: int = 10**6) -> dict[str, Any]:
    return build([{"step": "image"}, *tables], Place(Path(), Bounds(image_pixels_max=pixels_max)))({"data": data})


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "I;16", "CMYK"])
def test_every_kind_of_pixel_becomes_three_bytes(kind: str, mode: str) -> None:
    if kind == "JPEG" and mode not in ("RGB", "L", "CMYK"):
        kind = "PNG"
    if kind == "PNG" and mode == "CMYK":
        kind = "JPEG"
    pixels = run(saved(pillow.new(mode, (5, 3)), kind))["image"]
    assert (pixels.shape, pixels.dtype) == ((3, 5, 3), np.uint8)


def test_channels_come_in_the_order_that_is_asked_for() -> None:
    red = png(2, 2, "RGB", (255, 10, 0))
    assert decode(red, "rgb", 10)[0, 0].tolist() == [255, 10, 0]
    assert decode(red, "bgr", 10)[0, 0].tolist() == [0, 10, 255]
    assert decode(red, "grey", 10).shape == (2, 2)


def test_what_shows_through_is_white() -> None:
    clear = saved(pillow.new("RGBA", (2, 2), (0, 0, 0, 0)))
    assert decode(clear, "grey", 10).tolist() == [[255, 255], [255, 255]]


def test_a_picture_taken_sideways_stands_upright() -> None:
    picture = pillow.new("RGB", (4, 2))
    exif = picture.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), "rgb", 10).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no PNG and no JPEG"),
        (b"GIF89a" + b"\0" * 20, "no PNG and no JPEG"),
        (png(200, 200)[:60], "cut short"),
        (saved(pillow.effect_noise((200, 200), 90), "JPEG")[:900], "cut short"),
        (saved(pillow.effect_noise((200, 200), 90))[:900], "cut short"),
        (png_that_claims(1001, 1000), "1001 x 1000 pixels, the most allowed is 1000000"),
        (png_that_claims(100_000, 100_000), "image-pixels-max"),
        (png_that_claims(2**31 - 1, 2**31 - 1), "image-pixels-max"),
        (png_that_claims(0, 5), "PNG|unpacked|read"),
        (png_that_claims(900, 900), "cut short"),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(BadMedia, match=says):
        decode(data, "rgb", 10**6)


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """10,000 x 10,000 pixels in 97 kB: refused by the header alone."""
    bomb = png(10_000, 10_000)
    assert len(bomb) < 200_000

    def unpacked(*_: object) -> None:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", unpacked)
    with pytest.raises(BadMedia, match="10000 x 10000"):
        decode(bomb, "rgb", 25_000_000)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_picture_or_refused(tail: bytes) -> None:
    for head in (b"", png(3, 3)[:-20], saved(pillow.new("RGB", (3, 3)), "JPEG")[:-20]):
        try:
            assert decode(head + tail, "rgb", 1000).ndim == 3
        except BadMedia:
            continue


@pytest.mark.parametrize(
    ("options", "shape", "scale"),
    [
        ({"width": 28, "height": 14}, (14, 28), (100 / 14, 50 / 28)),
        ({"width": 64, "height": 64, "mode": "letterbox"}, (64, 64), (100 / 64, 50 / 32)),
        ({"width": 320, "height": 48, "mode": "letterbox", "fit": True}, (48, 32), (100 / 48, 50 / 24)),
        ({"mode": "multiple-of"}, (96, 64), (100 / 96, 50 / 64)),
        ({"mode": "multiple-of", "side_min": 200}, (384, 192), (100 / 384, 50 / 192)),
        ({"mode": "multiple-of", "side_min": 200, "side_max": 64}, (64, 32), (100 / 64, 50 / 32)),
    ],
)
def test_sizes_are_those_of_the_mode(options: dict[str, Any], shape: Any, scale: Any) -> None:
    found = Resize(**options).apply({"image": np.zeros((100, 50, 3), np.uint8)})
    assert found["image"].shape == (*shape, 3)
    assert found["scale"].tolist() == list(scale)


def test_letterbox_keeps_the_rest_in_its_colour() -> None:
    white = np.full((10, 20), 255, np.uint8)
    found = Resize(width=8, height=8, mode="letterbox", fill=7).apply({"image": white})["image"]
    assert (found[:4] == 255).all()
    assert (found[4:] == 7).all()


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["stretch", "letterbox", "multiple-of"]))
def test_any_picture_fits(height: int, width: int, mode: Any) -> None:
    found = Resize(width=48, height=32, mode=mode, side_min=32, side_max=64).apply(
        {"image": np.zeros((height, width), np.uint8)}
    )["image"]
    if mode == "multiple-of":
        assert all(side % 32 == 0 and side <= 64 for side in found.shape)
    else:
        assert found.shape == (32, 48)


def test_normalising_is_scale_then_mean_then_std_in_the_layout() -> None:
    pixels: Array = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    step = Normalise(scale=0.5, mean=(1.0, 2.0, 3.0), std=(2.0,), output="x")
    found = step.apply({"image": pixels})["x"]
    assert (found.shape, found.dtype) == ((1, 3, 2, 4), np.float32)
    assert found.flags.c_contiguous
    assert np.allclose(found[0, 1], (pixels[..., 1] * 0.5 - 2) / 2)
    last = Normalise(layout="NHWC", invert=True).apply({"image": pixels})["image"]
    assert np.allclose(last[0], (255 - pixels.astype(np.float32)) / 255)
    with pytest.raises(BadMedia, match="1 channels"):
        step.apply({"image": pixels[..., 0]})
