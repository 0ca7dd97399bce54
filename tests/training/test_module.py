"""The LightningModule against the plain functions, and resuming at any timestep."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPT
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch.optim import Adam

from nulltext.data.frame import Frame
from nulltext.data.picture import read_picture
from nulltext.errors import UserError
from nulltext.inversion import NullText
from nulltext.inversion.invert import invert
from nulltext.inversion.methods.flow_edit import FlowEdit
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.models import DiffusionModel, LoadingOptions
from nulltext.training.datamodule import PictureData
from nulltext.training.module import NullTextInversion

SETTINGS: dict[str, Any] = {
    "steps": 4,
    "inner_steps": 2,
    "start": 0.5,
    "tolerance": 0.0,
    "keep_best": False,
    "last_factor": 1,
    "shortest_step": 0.0,
    "optimizer": partial(NormalisedGradient, lr=0.002),
}


class _Stop(RuntimeError):
    pass


class _Probe(Callback):
    """Keeps each group's results and saves them, then a checkpoint; stops after the timestep it is told to."""

    def __init__(self, folder: Path, stop_after: int = -1) -> None:
        self.folder, self.stop_after, self.done = folder, stop_after, 0
        self.results: list[Any] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        if int(module.cursor) == module.method.steps:
            self.results += module.results()
            for result in self.results:
                result.inversion.save(self.folder / result.picture.name / "inversion.safetensors")
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.done += 1
        if self.done == self.stop_after:
            raise _Stop


def _pictures(folder: Path, count: int = 1, size: tuple[int, int] = (32, 32)) -> list[Path]:
    paths = []
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (*size, 3), dtype=np.uint8)
        paths.append(folder / f"picture{k}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def _fit(
    model: Path, pictures: list[Path], probe: _Probe, ckpt: Path | None = None, **settings: Any
) -> NullTextInversion:
    data_settings = {key: settings.pop(key) for key in ("crop", "prompt", "batch_size") if key in settings}
    precision = settings.pop("precision", "32-true")
    init = settings.pop("init", None)
    method = settings.pop("method", None) or NullText(**{**SETTINGS, **settings})
    module = NullTextInversion(method, LoadingOptions(str(model)), init)
    data = PictureData(image=pictures, **{"prompt": PROMPT, "batch_size": 1, **data_settings})
    trainer = Trainer(
        default_root_dir=probe.folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[probe],
        precision=precision,
    )
    trainer.fit(module, data, ckpt_path=ckpt, weights_only=True)
    return module


def test_the_module_does_what_the_functions_do(tiny: Path, tmp_path: Path) -> None:
    for size in ((32, 32), (32, 48)):
        (path,) = _pictures(tmp_path, size=size)
        probe = _Probe(tmp_path)
        module = _fit(tiny, [path], probe, crop="none")
        model = DiffusionModel.from_pretrained(str(tiny))
        frame = Frame("none", model.default_size, model.size_multiple)
        expected = invert(model, read_picture(path, frame, prompt=PROMPT), method=NullText(**SETTINGS))
        (result,) = probe.results
        assert torch.equal(result.inversion.null_embeddings, expected.null_embeddings)
        assert torch.equal(result.inversion.noise, expected.noise)
        assert result.inversion.psnr == pytest.approx(expected.psnr, abs=1e-4)
        assert result.inversion.placement == expected.placement
        assert result.vae.shape == result.ddim.shape == (3, *expected.size)
        assert module.cost.unet_forwards == model.forwards
        assert module.cost.unet_backwards == model.backwards == 4 * 2
        pivot = model.forwards - 4 * (1 + 2 + 1)
        assert 4 <= pivot <= 4 * NullText.fixed_point_iterations + 2


@pytest.mark.parametrize("stop_after", [1, 3, 4, 6])
def test_a_stopped_run_resumes_bit_for_bit(tiny_sd: Path, tmp_path: Path, stop_after: int) -> None:
    pictures = _pictures(tmp_path, count=2)
    whole = _Probe(tmp_path / "whole")
    _fit(tiny_sd, pictures, whole)
    first, second = _Probe(tmp_path, stop_after), _Probe(tmp_path)
    with pytest.raises(_Stop):
        _fit(tiny_sd, pictures, first)
    _fit(tiny_sd, pictures, second, tmp_path / "last.ckpt")
    assert first.done + second.done == whole.done
    parts = first.results + second.results
    assert len(parts) == len(whole.results) == 2
    for part, expected in zip(parts, whole.results, strict=True):
        assert torch.equal(part.inversion.null_embeddings, expected.inversion.null_embeddings)
        assert torch.equal(part.reconstruction, expected.reconstruction)


def test_a_run_stopped_under_an_older_nulltext_goes_on(tiny_sd: Path, tmp_path: Path) -> None:
    """Its checkpoint holds noise that edits took their fine detail from."""
    pictures, first, second = _pictures(tmp_path), _Probe(tmp_path, 2), _Probe(tmp_path)
    with pytest.raises(_Stop):
        _fit(tiny_sd, pictures, first)
    old = torch.load(tmp_path / "last.ckpt", weights_only=True)
    old["state_dict"]["detail_noise"] = torch.zeros(1, 4, 6, 6)
    old["nulltext"]["settings"]["detail_steps"] = 3
    torch.save(old, tmp_path / "old.ckpt")
    _fit(tiny_sd, pictures, second, tmp_path / "old.ckpt")
    assert first.done + second.done == 4 and len(second.results) == 1


def test_a_stopped_run_keeps_the_residuals_of_the_steps_done(tiny_sd: Path, tmp_path: Path) -> None:
    (picture,), method = _pictures(tmp_path), FlowEdit(steps=4, skip=0.25)
    whole, first, second = _Probe(tmp_path / "whole"), _Probe(tmp_path, 3), _Probe(tmp_path)
    _fit(tiny_sd, [picture], whole, method=method)
    with pytest.raises(_Stop):
        _fit(tiny_sd, [picture], first, method=method)
    _fit(tiny_sd, [picture], second, tmp_path / "last.ckpt", method=method)
    found, expected = (probe.results[0].inversion.residuals for probe in (second, whole))
    assert torch.equal(found, expected)
    assert [bool(step.any()) for step in expected] == [False, True, True, True]  # the first is skipped


def test_a_checkpoint_holds_the_embeddings_and_little_else(tiny_sd: Path, tmp_path: Path) -> None:
    _fit(tiny_sd, _pictures(tmp_path), _Probe(tmp_path))
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert set(state["state_dict"]) == {
        "cursor",
        "z",
        "pivot",
        *(f"null.{i}" for i in range(4)),
    }
    assert not any(state["optimizer_states"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 5}, "steps"),
        ({"guidance_scale": 3.0}, "guidance_scale 7.5"),
        ({"prompt": "another prompt"}, "another prompt"),
        ({"precision": "bf16-mixed"}, "give --trainer.precision 32-true"),
        ({"optimizer": partial(NormalisedGradient, lr=0.1)}, r"give --model.optimizer.lr 0.002"),
        (
            {"optimizer": partial(Adam, lr=0.01)},
            "--model.optimizer nulltext.inversion.methods.optimizers.Norm",
        ),
    ],
)
def test_a_foreign_checkpoint_is_refused_by_name(
    tiny_sd: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    pictures = _pictures(tmp_path)
    with pytest.raises(_Stop):
        _fit(tiny_sd, pictures, _Probe(tmp_path, 2))
    with pytest.raises(UserError, match=named):
        _fit(tiny_sd, pictures, _Probe(tmp_path), tmp_path / "last.ckpt", **change)


def test_another_model_is_refused_by_name(tiny_sd: Path, tmp_path: Path) -> None:
    pictures = _pictures(tmp_path)
    with pytest.raises(_Stop):
        _fit(tiny_sd, pictures, _Probe(tmp_path, 2))
    other = DiffusionModel.from_pretrained(str(tiny_sd))
    with torch.no_grad():
        other.denoiser.conv_in.bias += 1
    other.pipe.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="was made with the model"):
        _fit(tmp_path / "other", pictures, _Probe(tmp_path), tmp_path / "last.ckpt")


def test_finished_embeddings_serve_as_a_start(tiny_sd: Path, tmp_path: Path) -> None:
    pictures = _pictures(tmp_path)
    first = _Probe(tmp_path)
    _fit(tiny_sd, pictures, first, inner_steps=4, start=0.0)
    first.results[0].inversion.save(tmp_path / "inversion.safetensors")
    again = _Probe(tmp_path / "again")
    _fit(tiny_sd, pictures, again, inner_steps=4, start=0.0, init=tmp_path / "inversion.safetensors")
    assert again.results[0].latent_mse < first.results[0].latent_mse
    with pytest.raises(UserError, match="has 4 steps"):
        _fit(tiny_sd, pictures, _Probe(tmp_path), steps=5, init=tmp_path / "inversion.safetensors")


def test_at_guidance_one_it_says_so(tiny_sd: Path, tmp_path: Path) -> None:
    probe = _Probe(tmp_path)
    with pytest.warns(UserWarning, match="stay as they start"):
        _fit(tiny_sd, _pictures(tmp_path), probe, guidance_scale=1.0, start=0.0)
    empty = DiffusionModel.from_pretrained(str(tiny_sd)).embed("").sequence[0]
    for null in probe.results[0].inversion.null_embeddings:
        assert torch.equal(null, empty)
