"""Steps on pictures: decode, resize, normalise; pure, on the steps' threads."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

import numpy as np
from msgspec import Meta

from tidemill.core.errors import BadMedia, RefusedModel
from tidemill.core.tensor import Array
from tidemill.steps.step import Function, Name, Place, Step, Values, raw, take

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Side: TypeAlias = Annotated[int, Meta(ge=1, le=16_384)]
MODES = {"rgb": "RGB", "bgr": "RGB", "grey": "L"}
OPENERS = ("PNG", "JPEG")


class Image(Step, frozen=True, kw_only=True):
    """Decodes PNG or JPEG: `image` UINT8 [H, W, 3], [H, W] in grey, turned upright as the camera says."""

    accepts: ClassVar[tuple[str, ...]] = ("image/png", "image/jpeg")
    mode: Annotated[Literal["rgb", "bgr", "grey"], Meta(description="order of the channels")] = "rgb"
    output: Name = "image"

    def bind(self, place: Place) -> Function:
        from PIL import PngImagePlugin  # noqa: F401 - a missing library is told when the model is loaded

        def apply(values: Values) -> Values:
            return {self.output: decode(raw(values), self.mode, place.bounds.image_pixels_max)}

        return apply


def decode(data: bytes, mode: str, pixels_max: int) -> Array:
    """The pixels of a PNG or JPEG. Its size is judged by its header, before anything is unpacked. Raises `BadMedia`."""
    from PIL import Image as pillow
    from PIL import ImageOps, UnidentifiedImageError

    broken = (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, KeyError, TypeError)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures that are large: the bound is ours
            picture = pillow.open(io.BytesIO(data), formats=OPENERS)
    except UnidentifiedImageError as error:
        raise BadMedia(f"{len(data)} bytes that begin with {data[:8].hex()} are no PNG and no JPEG") from error
    except pillow.DecompressionBombError as error:
        raise BadMedia(
            f"the picture has far more than {pixels_max} pixels (--image-pixels-max); send it smaller"
        ) from error
    except broken as error:
        raise BadMedia(f"the picture cannot be read: {error}; is it cut short?") from error
    with picture:
        width, height = picture.size
        if width * height > pixels_max:
            raise BadMedia(
                f"the picture has {width} x {height} pixels, the most allowed is {pixels_max} together"
                " (--image-pixels-max); send it smaller"
            )
        try:
            picture.load()
            upright = ImageOps.exif_transpose(picture)
            plain = _on_white(upright).convert(MODES[mode])
        except broken as error:
            raise BadMedia(
                f"the picture of {width} x {height} cannot be unpacked: {error}; is it cut short?"
            ) from error
    pixels = np.asarray(plain, np.uint8)
    return np.ascontiguousarray(pixels[..., ::-1]) if mode == "bgr" else pixels


def _on_white(picture: Picture) -> Picture:
    """What shows through is white, as on paper."""
    from PIL import Image as pillow

    if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
        deep = np.asarray(picture).astype(np.int64)
        return pillow.fromarray((deep >> 8).clip(0, 255).astype(np.uint8))
    if picture.mode not in ("RGBA", "LA", "PA") and "transparency" not in picture.info:
        return picture
    clear = picture.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", clear.size, "white"), clear)


class Resize(Step, frozen=True, kw_only=True):
    """Makes a picture UINT8 another size; `scale` FP64 [2] (down, across) leads from its pixels to those before.

    stretch: exactly `height` x `width`. letterbox: as large as fits, at the upper left, the rest `fill`. multiple-of:
    in its proportions, the shorter side at least `side_min`, the longer at most `side_max`, in whole times `multiple`.
    """

    mode: Annotated[Literal["stretch", "letterbox", "multiple-of"], Meta(description="see above")] = "stretch"
    width: Annotated[Side | None, Meta(description="pixels; for letterbox the most, where `fit` says so")] = None
    height: Annotated[Side | None, Meta(description="pixels")] = None
    multiple: Annotated[int, Meta(ge=1, le=1024, description="of multiple-of, and of the width where `fit`")] = 32
    side_min: Annotated[int, Meta(ge=0, le=16_384, description="of multiple-of; 0 none")] = 0
    side_max: Annotated[Side, Meta(description="of multiple-of")] = 4096
    fit: Annotated[bool, Meta(description="letterbox no wider than needed, in steps of `multiple`")] = False
    width_min: Annotated[Side, Meta(description="of letterbox where `fit`")] = 1
    fill: Annotated[int, Meta(ge=0, le=255, description="grey of the rest")] = 0
    input: Name = "image"
    output: Name = "image"

    def bind(self, place: Place) -> Function:
        if self.mode != "multiple-of" and (self.width is None or self.height is None):
            raise RefusedModel(f"mode {self.mode!r} wants `width` and `height`")
        return self.apply

    def apply(self, values: Values) -> Values:
        pixels = take(values, self.input)
        if pixels.ndim not in (2, 3) or 0 in pixels.shape:
            raise BadMedia(f"{self.input!r} has shape {list(pixels.shape)}, expected a picture [H, W] or [H, W, C]")
        height, width = pixels.shape[:2]
        inner, outer = self.sizes(height, width)
        small = resized(pixels, *inner)
        if outer != inner:
            canvas = np.full((*outer, *pixels.shape[2:]), self.fill, np.uint8)
            canvas[: inner[0], : inner[1]] = small
            small = canvas
        return {self.output: small, "scale": np.array([height / inner[0], width / inner[1]])}

    def sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """(height, width) of the picture and of the whole with its border."""
        if self.mode == "multiple-of":
            factor = max(1.0, self.side_min / min(height, width)) if self.side_min else 1.0
            factor = min(factor, self.side_max / max(height, width))
            most = max(1, self.side_max // self.multiple)
            high, wide = (
                min(most, max(1, round(side * factor / self.multiple))) * self.multiple for side in (height, width)
            )
            return (high, wide), (high, wide)
        assert self.width is not None  # noqa: S101 - held by `bind`
        assert self.height is not None  # noqa: S101
        if self.mode == "stretch":
            return (self.height, self.width), (self.height, self.width)
        factor = min(self.height / height, self.width / width)
        inner = max(1, min(self.height, round(height * factor))), max(1, min(self.width, round(width * factor)))
        needed = max(self.width_min, -(-inner[1] // self.multiple) * self.multiple)
        across = min(self.width, needed) if self.fit else self.width
        return inner, (self.height, across)


def resized(pixels: Array, height: int, width: int) -> Array:
    """Bilinear, over all pixels that fall into one where it becomes smaller."""
    from PIL import Image as pillow

    if pixels.shape[:2] == (height, width):
        return pixels
    picture = pillow.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize((width, height), pillow.Resampling.BILINEAR), np.uint8)


class Normalise(Step, frozen=True, kw_only=True):
    """(pixels * scale - mean) / std as FP32 with a dimension of one in front: [1, C, H, W], or [1, H, W, C]."""

    scale: Annotated[float, Meta(description="1/255 makes 0 to 1 of a byte")] = 1 / 255
    mean: Annotated[tuple[float, ...], Meta(max_length=16, description="one for all channels, or one each")] = (0.0,)
    std: Annotated[tuple[float, ...], Meta(max_length=16, description="one for all channels, or one each")] = (1.0,)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    invert: Annotated[bool, Meta(description="255 - pixels first: dark on light becomes light on dark")] = False
    input: Name = "image"
    output: Name = "image"

    def bind(self, place: Place) -> Function:
        if 0.0 in self.std or not self.mean or not self.std:
            raise RefusedModel(f"mean {list(self.mean)} and std {list(self.std)}: at least one each, std not 0")
        return self.apply

    def apply(self, values: Values) -> Values:
        pixels = take(values, self.input)
        if pixels.ndim == 2:
            pixels = pixels[..., np.newaxis]
        channels = pixels.shape[-1]
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels):
                raise BadMedia(f"the picture has {channels} channels, `{name}` {len(numbers)} values")
        plain: Array = pixels.astype(np.float32)
        if self.invert:
            plain = 255 - plain
        plain = (plain * np.float32(self.scale) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.layout == "NCHW":
            plain = plain.transpose(2, 0, 1)
        return {self.output: np.ascontiguousarray(plain[np.newaxis], np.float32)}
