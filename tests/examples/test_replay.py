"""A stock diffusers pipeline replays an inversion to within 1/255 a pixel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from conftest import PROMPT
from diffusers import DiffusionPipeline
from PIL import Image

from nulltext.data.picture import Picture
from nulltext.inversion import NullText
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

EXAMPLES = Path(__file__).parents[2] / "examples"


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 48)])
def test_stock_diffusers_replays_an_inversion(tiny: Path, tmp_path: Path, height: int, width: int) -> None:
    model = DiffusionModel.from_pretrained(str(tiny))
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    method = NullText(steps=5, inner_steps=2)
    inversion = invert(model, Picture(pixels, PROMPT, "noise", sha256="0" * 64), method=method)
    inversion.save(tmp_path / "inversion.safetensors")
    is_xl = model.pipeline == "StableDiffusionXLPipeline"
    extras = {} if is_xl else {"safety_checker": None, "requires_safety_checker": False}
    stock = DiffusionPipeline.from_pretrained(str(tiny), **extras)
    stock.set_progress_bar_config(disable=True)
    replayed = np.asarray(
        _example("replay_with_diffusers").replay(stock, str(tmp_path / "inversion.safetensors"))
    )
    ours = model.decode(method.replay(model, inversion).trajectory[-1])[0]
    expected = ((ours + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(replayed - expected).max() <= 1.0


def test_one_photo_is_edited_without_the_command_line(tiny_sd: Path, tmp_path: Path) -> None:
    Image.effect_noise((32, 32), 50).convert("RGB").save(tmp_path / "barn.png")
    (tmp_path / "barn.txt").write_text("a red barn")
    main = _example("edit_one_photo").main
    main(str(tmp_path / "barn.png"), "a red hat", str(tmp_path / "hat.png"), str(tiny_sd))
    with Image.open(tmp_path / "hat.png") as picture:
        assert picture.size == (32, 32) and picture.text["prompt"] == "a red hat"
