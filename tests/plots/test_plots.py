"""Pictures for people: every pixel where it belongs, every character readable."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from nulltext import plots
from nulltext.plots import fonts, sheet
from nulltext.plots.heat import FULL_DIFFERENCE

ODD = "élan — naïve “façade” costs $5, not $3 \\alpha x_1^2 羊が 🐑👍🏽 ﬁn Ⅻ\u200d\ud83d\x07 한글 <b>&amp;"


def palette(picture):
    """The colours of a picture, as triples."""
    return {tuple(colour) for colour in np.asarray(picture).reshape(-1, 3).tolist()}


def found(page, picture):
    """The upper left corners (x, y) at which a picture lies on a page, pixel for pixel."""
    page, picture = np.asarray(page), np.asarray(picture.convert("RGB"))
    height, width = picture.shape[:2]
    places = []
    for y, x in np.argwhere((page == picture[0, 0]).all(-1)):
        if np.array_equal(page[y : y + height, x : x + width], picture):
            places.append((int(x), int(y)))
    return places


def noise(seed, side=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, side, side, generator=generator) * 2 - 1


def picture(seed, side=32):
    return Image.fromarray(((noise(seed, side) + 1) * 127.5).byte().permute(1, 2, 0).numpy())


# ------------------------------------------------------------------------------------------------ heat


def test_difference_map_is_black_for_equals_and_palest_from_a_quarter_on():
    white, black = torch.ones(3, 4, 4), -torch.ones(3, 4, 4)
    assert palette(plots.difference_map(white, white)) == {tuple(plots.heat_colours(np.zeros(1))[0].tolist())}
    palest = {tuple(plots.heat_colours(np.ones(1))[0].tolist())}
    assert palette(plots.difference_map(black, white)) == palest
    assert palette(plots.difference_map(black, black + 2 * FULL_DIFFERENCE)) == palest


def test_heat_grows_lighter():
    light = plots.heat_colours(np.linspace(0, 1, 20)).astype(int).sum(-1)
    assert (np.diff(light) > 0).all() and light[0] < 20 and light[-1] > 600


def test_side_by_side_has_the_pictures_above_and_their_differences_below():
    first, second = noise(0, 8), noise(1, 8)
    page = plots.side_by_side([first, second])
    assert page.shape == (3, 16, 16) and 0 <= page.min() and page.max() <= 1
    torch.testing.assert_close(page[:, :8, 8:], (second + 1) / 2)
    assert page[:, 8:, :8].max() < 0.1 < page[:, 8:, 8:].max()


def test_heat_map_orders_losses_and_leaves_gaps_gray():
    page = plots.heat_map([torch.tensor([1e-2, 1e-4]), torch.tensor([1e-3]), torch.zeros(0)])
    image = np.asarray(page).astype(int)
    left, top, width, height = 80, 48, 720, 280
    cells = [
        [image[top + (2 * j + 1) * height // 4, left + (2 * i + 1) * width // 6] for i in range(3)]
        for j in (0, 1)
    ]
    assert cells[0][0].sum() > cells[0][1].sum() > cells[1][0].sum()
    assert cells[1][1].tolist() == cells[0][2].tolist() == [235] * 3


@pytest.mark.parametrize("losses", [[], [torch.zeros(0)], [torch.zeros(3)], [torch.full((2,), torch.nan)]])
def test_losses_that_are_none_are_drawn_too(losses):
    assert plots.heat_map(losses).width > 300


def test_attention_is_brightest_where_it_is_highest():
    attention = torch.zeros(4, 4)
    attention[1, 2] = 5.0
    page = np.asarray(plots.heat_over(torch.zeros(3, 32, 32), attention)).astype(int).sum(-1)
    assert page.shape == (32, 32)
    assert np.unravel_index(page.argmax(), page.shape) in [
        (y, x) for y in range(8, 16) for x in range(16, 24)
    ]


# ------------------------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (512, 512), (96, 32)])
def test_a_report_has_every_picture_unchanged_in_its_order(size):
    levels = (-1.0, -0.5, 0.0, 1.0)
    pictures = [(f"{level}", torch.full((3, *size), level)) for level in levels]
    page = np.asarray(plots.report("title " * 60, pictures, [1e-3, 1e-4], [1e-4, 1e-5], ["fact"] * 5))
    places = []
    for level in levels[:3]:
        there = (page == round((level + 1) * 127.5)).all(-1)
        assert there.sum() > 1000
        places.append(np.argwhere(there)[:, 1].mean())
    assert places == sorted(places)
    assert plots.report("", pictures, [], [], []).width > 300
    assert plots.report("x", pictures, [0.0, 0.0], [float("nan"), 0.0], []).width > 300


def test_a_small_picture_is_enlarged_without_blur():
    small = picture(0, 64)
    page = plots.strip([("original", "a sheep", small)])
    large = small.resize((384, 384), Image.Resampling.NEAREST)
    assert found(page, large) == [(16, 16)]


def test_a_grid_has_its_pictures_row_by_row():
    pictures = [picture(k, 16) for k in range(5)]
    page = plots.grid("a title", ["up", "down\nmore"], ["a", "b", "c"], [*pictures, None], tile=32)
    doubled = [p.resize((32, 32), Image.Resampling.NEAREST) for p in pictures]
    corners = [found(page, p) for p in doubled]
    assert all(len(places) == 1 for places in corners)
    (x, y), step = corners[0][0], corners[1][0][0] - corners[0][0][0]
    assert step > 32
    assert [places[0] for places in corners] == [
        (x + step * (k % 3), y + step * (k // 3)) for k in range(len(pictures))
    ]


def test_a_strip_breaks_into_rows():
    pages = [plots.strip([("t", "words", picture(k))] * 4, columns=2) for k in range(2)]
    assert pages[0].size == pages[1].size and 768 < pages[0].width < 900 < pages[0].height


def test_a_box_plot_has_a_panel_for_each_score():
    values = {"ddim plain": [1.0, 2.0, 3.0], "null_text $x_ 羊": [2.0], "empty": []}
    one = plots.box_plot("羊", {"SSIM": values})
    four = plots.box_plot("", {f"score {k}": values for k in range(4)})
    assert four.width > 2 * one.width and four.height > 1.8 * one.height
    frames = []
    for name in ("a", "negative_prompt plain"):
        page = np.asarray(plots.box_plot("", {"SSIM": {name: [1.0], "b": [2.0]}}))
        frames.append(int((page < 100).all(-1).sum(0).argmax()))  # the first column of a panel's frame
    assert frames[0] + 100 < frames[1]  # the label of a box is there, left of the panel


# ------------------------------------------------------------------------------------------------ words


def test_every_character_is_drawn_or_said_in_words():
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each glyph that no font has, and draws a box
        plots.report(ODD, [(ODD, torch.zeros(3, 16, 16))] * 2, [1e-3], [1e-4], [ODD])
        plots.strip([(ODD, ODD, picture(0))])
        plots.grid(ODD, [ODD], [ODD], [picture(0)])
        plots.box_plot(ODD, {ODD: {ODD: [1.0, 2.0]}})


def test_what_no_font_has_is_said_in_words(monkeypatch):
    base = fonts._installed()[fonts.BASE]
    monkeypatch.setattr(fonts, "_installed", lambda: {fonts.BASE: base})
    fonts.family_of.cache_clear(), fonts.drawable.cache_clear()
    try:
        assert fonts.drawable("élan — “ñ” ✓ x^2 $5 \\a") == "élan — “ñ” ✓ x^2 $5 \\a"
        assert fonts.drawable("a 🐑👍🏽 and\n\ta ⭐️") == "a [sheep][thumbs up sign] and a [white medium star]"
        assert fonts.drawable("草地上的羊, one 羊") == "[5 CJK letters], one [1 CJK letter]"
        assert fonts.drawable("한글") == "[2 HANGUL letters]"
        assert fonts.drawable("\ud83d\x07x") == "x"
    finally:
        fonts.family_of.cache_clear(), fonts.drawable.cache_clear()


def test_an_installed_font_is_used_for_what_it_has(monkeypatch):
    base = fonts._installed()[fonts.BASE]
    monkeypatch.setattr(fonts, "_installed", lambda: {"Broken": __file__, fonts.BASE: base})
    fonts.family_of.cache_clear()
    assert fonts.family_of("é") == fonts.BASE  # a file that is no font is passed over
    fonts.family_of.cache_clear()


def test_wrap_stays_within_the_width_and_three_lines():
    lines = sheet.wrap("word " * 200 + "x" * 500, 20, 300)
    assert len(lines) == 3 and lines[-1].endswith("…")
    assert all(sheet.text_width(line, 20) <= 300 for line in lines)
    assert all(sheet.text_width(line, 20) <= 300 for line in sheet.wrap("x" * 500, 20, 300))
    assert sheet.wrap("one two", 20, 300) == ["one two"]
    assert "".join(sheet.wrap("y" * 40, 20, 300)) == "y" * 40  # a long word is broken, not cut
    assert sheet.wrap("", 20, 300) == [""] and sheet.wrap("WW", 20, 1) == ["W", "W"]


def test_matplotlib_loads_at_the_first_plot_and_pyplot_never():
    code = (
        "import sys; from nulltext import plots; assert 'matplotlib' not in sys.modules\n"
        "from PIL import Image; plots.strip([('a', 'b', Image.new('RGB', (8, 8)))])\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
