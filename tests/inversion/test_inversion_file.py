"""inversion.safetensors: read without trust, and read when an older nulltext wrote it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import PROMPT
from quick_inversion import random_picture
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nulltext.editing import Edit, edit
from nulltext.errors import UserError
from nulltext.inversion import NullText
from nulltext.inversion.file import Inversion
from nulltext.inversion.invert import invert
from nulltext.models import DiffusionModel

NEW_FACTS = ("method", "kind", "alphas", "sigmas", "placement", "variant", "revision")


def test_damaged_and_foreign_inversions_are_refused(tiny_sd: Path, tiny_sd_v: Path, tmp_path: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    path = tmp_path / "inversion.safetensors"
    invert(model, random_picture(prompt=PROMPT), method=NullText(steps=2)).save(path)
    whole = path.read_bytes()
    with pytest.raises(UserError, match="no inversion"):
        Inversion.load(tmp_path / "other.safetensors")
    for damaged in (whole[: len(whole) // 2], b"", b"not a file of tensors", b"\xff" * 64 + whole):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged"):
            Inversion.load(path)
    path.write_bytes(whole)
    other = DiffusionModel.from_pretrained(str(tiny_sd_v))
    inversion = Inversion.load(path)
    with torch.no_grad():
        object.__setattr__(inversion, "fingerprint", "f" * 64)
    with pytest.raises(UserError, match="tiny_sd_v"):
        inversion.check(other)


def test_a_file_of_the_first_version_is_read(tiny: Path, tmp_path: Path) -> None:
    """It had no noise levels, no method and no placement."""
    model = DiffusionModel.from_pretrained(str(tiny))
    path = tmp_path / "inversion.safetensors"
    written = invert(model, random_picture(prompt=PROMPT), method=NullText(steps=3))
    written.save(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["nulltext"])
    old = {name: value for name, value in facts.items() if name not in NEW_FACTS}
    save_file(load_file(path), path, metadata={"nulltext": json.dumps(old)})
    inversion = Inversion.load(path)
    inversion.check(model)
    assert inversion.method == "null_text"
    assert torch.equal(inversion.null_embeddings, written.null_embeddings)
    assert NullText().replay(model, inversion).trajectory.isfinite().all()


def test_a_file_that_keeps_noise_for_fine_detail_is_read_without_it(tiny: Path, tmp_path: Path) -> None:
    """Edits took their fine detail from such noise once."""
    model = DiffusionModel.from_pretrained(str(tiny))
    path = tmp_path / "inversion.safetensors"
    written = invert(model, random_picture(prompt=PROMPT), method=NullText(steps=3))
    written.save(path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["nulltext"])
    old = {**facts, "detail_steps": 8, "settings": {**facts["settings"], "detail_steps": 8}}
    tensors = {**load_file(path), "detail_noise": torch.randn_like(written.noise)}
    save_file(tensors, path, metadata={"nulltext": json.dumps(old)})
    inversion = Inversion.load(path)
    inversion.check(model)
    assert inversion.settings == written.settings
    change = Edit("a blue barn", kind="plain", local_blend=None)
    found, expected = (edit(model, one, change).results[0].picture for one in (inversion, written))
    assert torch.equal(found, expected)
    inversion.save(path)
    with safe_open(path, framework="pt") as file:
        assert "detail" not in file.metadata()["nulltext"] and "detail_noise" not in file.keys()


def test_the_levels_say_which_schedule_it_was(tiny_sd: Path) -> None:
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    inversion = invert(model, random_picture(prompt=PROMPT), method=NullText(steps=3))
    assert len(inversion.alphas) == len(inversion.sigmas) == 4
    schedule = model.schedule(3)
    assert inversion.sigmas[:3] == schedule.sigma.tolist() and inversion.sigmas[3] < inversion.sigmas[2]
    inversion.check(model)
    model.scheduler_config["beta_end"] = 0.02  # other noise levels at the same timesteps
    with pytest.raises(UserError, match="scheduler"):
        inversion.check(model)
