"""Small copies of pictures, to be sent often and looked at on a screen."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

SIDE = 512  # pixels of the longer side
FRAME = "#ff7a00"


def contained(image: Image.Image) -> Image.Image:
    """A picture in a size to be looked at."""
    return ImageOps.contain(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BICUBIC)


def framed(photo: Image.Image, box: Sequence[float]) -> Image.Image:
    """A small copy of a photo with all but a piece of it darkened; the box is in the photo's pixels."""
    image = contained(photo)
    left, top, right, bottom = (round(side * image.width / photo.width) for side in box)
    dark = Image.blend(image, Image.new("RGB", image.size), 0.6)
    dark.paste(image.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dark).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=3)
    return dark


def data_url(image: Image.Image) -> str:
    """A small copy of a picture as a page takes it without a further request."""
    file = io.BytesIO()
    contained(image).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
