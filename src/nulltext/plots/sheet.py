"""A figure laid out in pixels from its upper left corner, on which pictures keep their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from nulltext.plots.fonts import drawable, font

TILE = 384  # pixels of a picture's longer side
GAP = 16
SMALL, NORMAL, LARGE = 18, 22, 26  # heights of text in pixels
INK, PALE = "#1a1a1a", "#6a6a6a"
DPI = 100
LINE = 1.35  # from one line to the next, in heights of text


class Sheet:
    """A page of pictures, text and axes, its width and height in pixels."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")

    def picture(self, picture: Image.Image, left: int, top: int) -> None:
        """Draws a picture, pixel for pixel."""
        pixels = np.asarray(picture.convert("RGB"))
        self.figure.figimage(pixels, left, self.height - top - len(pixels), origin="upper")

    def text(
        self,
        lines: str | Sequence[str],
        left: float,
        top: float,
        size: int = NORMAL,
        colour: str = INK,
        align: str = "left",
    ) -> None:
        """Draws lines of text. Dollars and backslashes are characters like others."""
        for number, line in enumerate([lines] if isinstance(lines, str) else lines):
            shown = drawable(line)
            self.figure.text(
                left / self.width,
                1 - (top + round(LINE * size * number)) / self.height,
                shown,
                color=colour,
                fontproperties=font(shown, points(size)),
                va="top",
                ha=align,
                parse_math=False,
            )

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """Axes whose frame is that box."""
        box = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(box)
        axes.tick_params(labelsize=points(SMALL), colors=PALE)
        return axes

    def image(self) -> Image.Image:
        """The page as a picture."""
        return render(self.figure)


def render(figure: Any) -> Image.Image:
    """A figure as a picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def points(pixels: float) -> float:
    """A height of text in points."""
    return pixels * 72 / DPI


def enlarge(picture: Image.Image, side: int = TILE) -> Image.Image:
    """At most ``side`` pixels on the longer side; a small picture in whole enlarged pixels, without blur."""
    longer = max(picture.size)
    if longer <= side // 2:
        factor = side // longer
        return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    size = max(1, round(picture.width * side / longer)), max(1, round(picture.height * side / longer))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def wrap(text: str, size: int, width: float, lines: int = 3) -> list[str]:
    """A text in lines of at most that many pixels; the last of too many ends in an ellipsis."""

    def fits(line: str) -> bool:
        return text_width(line, size) <= width

    done = [""]
    for word in drawable(text).split(" "):
        longer = f"{done[-1]} {word}".strip()
        if fits(longer):
            done[-1] = longer
            continue
        if done[-1]:
            done.append("")
        for letter in word:  # a word longer than the line is broken, as in a language without spaces
            if done[-1] and not fits(done[-1] + letter):
                done.append("")
            done[-1] += letter
        if len(done) > lines:
            last = done[lines - 1]
            while last and not fits(last + "…"):
                last = last[:-1]
            return [*done[: lines - 1], last.rstrip() + "…"]
    return done


@lru_cache(maxsize=1)
def _renderer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(1, 1, DPI)


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> float:
    """The width of a drawable line in pixels."""
    return _renderer().get_text_width_height_descent(text, font(text, points(size)), ismath=False)[0]


def height_of(lines: Sequence[str], size: int) -> int:
    """The height of lines of text in pixels."""
    return round(LINE * size * len(lines))
