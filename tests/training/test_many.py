"""Many pictures in one fit: what breaks under way, what a run holds already, and the order of results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import PROMPT
from lightning.pytorch import Callback, Trainer
from PIL import Image
from torch.optim import Adam, Optimizer

from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.models import DiffusionModel, LoadingOptions
from nulltext.runs.memory import FREE_SHARE, MAPS, free_memory, pictures_together
from nulltext.runs.metrics_csv import add_row, read_rows
from nulltext.training.datamodule import PictureData
from nulltext.training.module import NullTextInversion


class Keeper(Callback):
    """Keeps each group's inversions and checkpoints, and meddles after each timestep."""

    def __init__(self, folder: Path, meddle: Callable[[int, int], None] = lambda group, step: None) -> None:
        self.folder, self.meddle = folder, meddle
        self.made: dict[str, Inversion] = {}

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        if int(module.cursor) == module.method.steps:
            for result in module.results():
                self.made[result.picture.name] = result.inversion
                result.inversion.save(self.folder / result.picture.name / "inversion.safetensors")
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.meddle(trainer.current_epoch, batch.step)


def noise(path: Path, seed: int, side: int = 32) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def fit(
    model: Path,
    pictures: list[Path],
    keeper: Keeper,
    ckpt: Path | None = None,
    optimizer: Callable[[Any], Optimizer] = NullText.optimizer,
    precision: Any = "32-true",
    **data: Any,
) -> PictureData:
    found = PictureData(image=pictures, prompt=PROMPT, **{"batch_size": 1, **data})
    trainer = Trainer(
        default_root_dir=keeper.folder,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[keeper],
        precision=precision,
    )
    method = NullText(steps=3, inner_steps=1, optimizer=optimizer)
    module = NullTextInversion(method, LoadingOptions(str(model)))
    trainer.fit(module, found, ckpt_path=ckpt, weights_only=True)
    return found


def test_as_many_pictures_go_together_as_the_free_memory_allows(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    width, f = model.network_width, model.vae_scale_factor
    picture = int(
        MAPS * width * 32 * 32 / f**2 * 4 / FREE_SHARE
    )  # bytes that have to be free for one of 32 x 32
    wanted = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 7: 4, 8: 8, 1000: 8}
    assert {n: pictures_together(model, (32, 32), n * picture) for n in wanted} == wanted
    assert pictures_together(model, (64, 32), 8 * picture) == 4
    half = DiffusionModel.from_pretrained(str(tiny_sd), precision="bf16-mixed")
    assert pictures_together(half, (32, 32), 2 * picture) == 4
    assert 0 < free_memory(model.device)


@pytest.mark.parametrize(("free", "sizes"), [(0, [1] * 5), (2**40, [4, 1])])
def test_a_folder_is_inverted_in_groups_that_fit_unless_told_otherwise(
    tiny_sd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("nulltext.training.groups.free_memory", lambda device: free)
    pictures = [noise(tmp_path / f"{k}.png", k) for k in range(4)]
    pictures.append(noise(tmp_path / "wide.png", 4, side=32))
    Image.open(pictures[-1]).crop((0, 0, 32, 24)).save(pictures[-1])
    data = fit(tiny_sd, pictures, Keeper(tmp_path / "run"), batch_size=None, crop="none")
    assert [len(group) for group in data.groups] == sizes


@pytest.mark.parametrize("how", ["gone", "changed", "damaged"])
def test_a_picture_that_breaks_under_way_is_reported_and_the_others_are_done(
    tiny_sd: Path, tmp_path: Path, how: str
) -> None:
    pictures = [noise(tmp_path / f"{k}.png", k) for k in range(3)]

    def meddle(group: int, step: int) -> None:
        if (group, step) == (0, 1):
            if how == "gone":
                pictures[1].unlink()
            elif how == "changed":
                noise(pictures[1], seed=9)
            else:
                pictures[1].write_bytes(pictures[1].read_bytes()[:100])

    keeper = Keeper(tmp_path / "run", meddle)
    data = fit(tiny_sd, pictures, keeper)
    ((place, reason),) = data.broken
    assert place.endswith("1.png") and reason
    whole = Keeper(tmp_path / "whole")
    fit(tiny_sd, [pictures[0], pictures[2]], whole)
    assert list(keeper.made) == ["0", "2"]
    for name, inversion in whole.made.items():
        assert torch.equal(inversion.null_embeddings, keeper.made[name].null_embeddings)


def test_a_run_resumes_in_its_third_picture_and_skips_the_finished_ones(
    tiny_sd: Path, tmp_path: Path
) -> None:
    pictures = [noise(tmp_path / f"{k}.png", k) for k in range(4)]

    def meddle(group: int, step: int) -> None:
        if (group, step) == (2, 1):
            raise RuntimeError("stop")

    first, second, whole = (
        Keeper(tmp_path / "run", meddle),
        Keeper(tmp_path / "run"),
        Keeper(tmp_path / "whole"),
    )
    fit(tiny_sd, pictures, whole)
    with pytest.raises(RuntimeError, match="stop"):
        fit(tiny_sd, pictures, first)
    data = fit(tiny_sd, pictures, second, tmp_path / "run/last.ckpt")
    assert data.finished == ["0", "1"] and list(second.made) == ["2", "3"]
    for name, inversion in {**first.made, **second.made}.items():
        assert torch.equal(inversion.null_embeddings, whole.made[name].null_embeddings)


def test_new_pictures_join_a_finished_run_and_other_settings_do_it_again(
    tiny_sd: Path, tmp_path: Path
) -> None:
    pictures = [noise(tmp_path / f"{k}.png", k) for k in range(2)]
    fit(tiny_sd, pictures, Keeper(tmp_path / "run"))
    more = [noise(tmp_path / "-first.png", 5), *pictures]
    again = Keeper(tmp_path / "run")
    assert fit(tiny_sd, more, again, tmp_path / "run/last.ckpt").finished == ["0", "1"]
    assert list(again.made) == ["-first"]
    other = Keeper(tmp_path / "run")
    assert fit(tiny_sd, pictures, other, size=48).finished == []
    assert sorted(other.made) == ["0", "1"]


@pytest.mark.parametrize(
    "how",
    [
        {"precision": "bf16-mixed"},
        {"optimizer": lambda parameters: NormalisedGradient(parameters, lr=0.02)},
        {"optimizer": lambda parameters: Adam(parameters, lr=0.01)},
    ],
)
def test_another_precision_learning_rate_or_optimiser_is_another_inversion(
    tiny_sd: Path, tmp_path: Path, how: dict[str, Any]
) -> None:
    pictures = [noise(tmp_path / "0.png", 0)]
    fit(tiny_sd, pictures, Keeper(tmp_path / "run"))
    assert fit(tiny_sd, pictures, Keeper(tmp_path / "run")).finished == ["0"]
    other = Keeper(tmp_path / "run")
    assert fit(tiny_sd, pictures, other, **how).finished == [] and list(other.made) == ["0"]
    assert fit(tiny_sd, pictures, Keeper(tmp_path / "run"), **how).finished == ["0"]


def test_an_inversion_that_does_not_say_its_precision_is_read_and_made_again(
    tiny_sd: Path, tmp_path: Path
) -> None:
    pictures, artifact = [noise(tmp_path / "0.png", 0)], tmp_path / "run/0/inversion.safetensors"
    fit(tiny_sd, pictures, Keeper(tmp_path / "run"))
    made = Inversion.load(artifact)
    said = {name: value for name, value in made.settings.items() if name != "precision"}
    assert len(said) == len(made.settings) - 1
    replace(made, settings=said).save(artifact)
    assert torch.equal(Inversion.load(artifact).null_embeddings, made.null_embeddings)
    assert fit(tiny_sd, pictures, Keeper(tmp_path / "run")).finished == []
    assert Inversion.load(artifact).settings == made.settings


def test_rows_stand_in_the_order_of_the_pictures(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    for name in ("b", "other", "c", "a", "b"):
        add_row(path, {"name": name, "psnr": 1.0}, order=["a", "b", "c"])
    assert [row["name"] for row in read_rows(path)] == ["a", "b", "c", "other"]
