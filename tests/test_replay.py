"""A stock diffusers pipeline replays an inversion to within 1/255 a pixel."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import PROMPT
from diffusers import DiffusionPipeline

from nulltext.backbone import Backbone
from nulltext.inversion import invert, reconstruct
from nulltext.inversion_settings import InversionSettings

EXAMPLES = Path(__file__).parents[1] / "examples"


def _example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 48)])
def test_stock_diffusers_replays_an_inversion(tiny: Path, tmp_path: Path, height: int, width: int) -> None:
    backbone = Backbone.from_pretrained(str(tiny))
    pixels = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1
    picture = SimpleNamespace(pixels=pixels, prompt=PROMPT, crop="center", sha256="0" * 64)
    inversion = invert(backbone, picture, settings=InversionSettings(steps=5, inner_steps=2))  # type: ignore[arg-type]
    inversion.save(tmp_path / "inversion.safetensors")
    extras = {} if backbone.family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}
    stock = DiffusionPipeline.from_pretrained(str(tiny), **extras)
    stock.set_progress_bar_config(disable=True)
    replayed = np.asarray(
        _example("replay_with_diffusers").replay(stock, str(tmp_path / "inversion.safetensors"))
    )
    ours = backbone.decode_latents(reconstruct(backbone, inversion))[0]
    expected = ((ours + 1) * 127.5).permute(1, 2, 0).numpy()
    assert np.abs(replayed - expected).max() <= 1.0
