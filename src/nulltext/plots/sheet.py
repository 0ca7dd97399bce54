"""A page laid out in pixels from its upper left corner, as high as what is on it; pictures keep their pixels."""

from collections.abc import Callable
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
    """A page of pictures, text and axes, its width in pixels. Each returns how far down it reaches."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, 0
        self._drawn: list[Callable[[Any], object]] = []

    def _later(self, bottom: float, draw: Callable[[Any], object]) -> int:
        """Keeps what is drawn on the figure, whose height is known when all is there."""
        self.height = max(self.height, round(bottom))
        self._drawn.append(draw)
        return round(bottom)

    def picture(self, picture: Image.Image, left: int, top: int) -> int:
        """Draws a picture, pixel for pixel."""
        pixels = np.asarray(picture.convert("RGB"))
        bottom = top + len(pixels)
        return self._later(
            bottom, lambda figure: figure.figimage(pixels, left, self.height - bottom, origin="upper")
        )

    def text(
        self, text: str, left: float, top: int, size: int = NORMAL, colour: str = INK, width: float = np.inf
    ) -> int:
        """Draws a text in at most three lines of that width. Dollars and backslashes are characters like others."""
        for line in wrap(text, size, width):
            properties = {"fontproperties": font(line, points(size)), "parse_math": False, "color": colour}

            def draw(figure: Any, top: int = top, line: str = line, properties: Any = properties) -> None:
                figure.text(left / self.width, 1 - top / self.height, line, va="top", **properties)

            top = self._later(top + LINE * size, draw)
        return top

    def tile(self, picture: Image.Image, left: int, top: int, *texts: tuple[str, int, str]) -> int:
        """Draws a picture and below it texts, each with its size and colour."""
        bottom = self.picture(picture, left, top) + 8
        for text, size, colour in texts:
            bottom = self.text(text, left, bottom, size, colour, max(picture.width, TILE))
        return bottom

    def axes(self, left: int, top: int, width: int, height: int, plot: Callable[[Any], object]) -> int:
        """Plots on axes whose frame is that box."""

        def draw(figure: Any) -> None:
            low, right = 1 - (top + height) / self.height, width / self.width
            axes = figure.add_axes((left / self.width, low, right, height / self.height))
            axes.tick_params(labelsize=points(SMALL), colors=PALE)
            plot(axes)

        return self._later(top + height, draw)

    def image(self) -> Image.Image:
        """The page as a picture, with a margin below."""
        from matplotlib.figure import Figure

        self.height += GAP
        figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="white")
        for draw in self._drawn:
            draw(figure)
        return render(figure)


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


@lru_cache(maxsize=4096)
def text_width(text: str, size: int) -> float:
    """The width of a drawable line in pixels."""
    from matplotlib.backends.backend_agg import RendererAgg

    properties = font(text, points(size))
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, properties, ismath=False)[0]
