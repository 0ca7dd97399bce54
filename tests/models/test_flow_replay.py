"""An inversion file of a flow is replayed by diffusers' stock pipelines, as the example in the repository does it."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from nulltext.inversion import NullText
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

EXAMPLE = Path(__file__).parents[2] / "examples" / "replay_flow_with_diffusers.py"
SETTINGS = [{}, {"tokens": 4, "start": 0.5}, {"start_sigma": 0.9, "guidance_scale": 5.0}]


@pytest.mark.parametrize("settings", SETTINGS, ids=["default", "few tokens", "start"])
@pytest.mark.parametrize("size", [(32, 32), (24, 32)])
def test_the_stock_pipeline_replays_the_file(
    tiny_flow: Path, tmp_path: Path, size: tuple[int, int], settings: dict[str, float]
) -> None:
    from diffusers import DiffusionPipeline

    model = DiffusionModel.from_pretrained(str(tiny_flow))
    pixels = torch.rand(3, *size, generator=torch.Generator().manual_seed(4)) * 2 - 1
    method = NullText(**{"steps": 5, "inner_steps": 2, "guidance_scale": 3.0, "tolerance": 0.0, **settings})
    inversion = invert(model, pixels, "a photo of a cat", method)
    inversion.save(tmp_path / "inversion.safetensors")
    ours = model.decode(method.replay(model, inversion).trajectory[-1])[0]
    without = {} if (tiny_flow / "text_encoder_3").is_dir() else {"text_encoder_3": None, "tokenizer_3": None}
    stock = DiffusionPipeline.from_pretrained(tiny_flow, **(without if "sd3" in tiny_flow.name else {}))
    stock.set_progress_bar_config(disable=True)
    replayed = runpy.run_path(str(EXAMPLE))["replay"](stock, str(tmp_path / "inversion.safetensors"))
    theirs = torch.from_numpy(np.asarray(replayed).copy()).permute(2, 0, 1) / 255
    assert float((theirs - (ours / 2 + 0.5)).abs().max()) <= 1 / 255
    learned, start = inversion.null_embeddings, model.learnable(model.embed(""), settings.get("tokens"))
    assert not torch.allclose(learned[-1], start[0], atol=1e-4)  # something was learned
