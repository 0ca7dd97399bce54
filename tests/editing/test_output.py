"""What an edit leaves beside its inversion: pictures that say what they are, masks, settings, sheets."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick_inversion import SOURCE, SWAP, quick_inversion

from nulltext.data.picture import read_picture
from nulltext.editing import Edit, edit
from nulltext.editing.output import Pictures, free_name, slug, write_edits
from nulltext.models.base import DiffusionModel


@dataclass(frozen=True)
class Job:
    path: Path
    edits: list[Edit]
    swept: dict[str, tuple[float, ...]]


@pytest.fixture(scope="module")
def sd(tiny_sd):
    model = DiffusionModel.from_pretrained(str(tiny_sd))
    return model, *quick_inversion(model)


def write(sd, folder, *edits, swept=None, attention=(), original=True):
    model, inversion, pixels = sd
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edited = edit(model, inversion, edits, attention=attention)
    job = Job(folder / "inversion.safetensors", list(edits), swept or {})
    shown = write_edits(
        job, inversion, edited, Pictures(pixels if original else None), {"method": "null_text"}
    )
    return edited, shown


def test_every_file_is_named_with_what_it_shows(sd, tmp_path):
    edited, shown = write(
        sd, tmp_path, Edit(SWAP), Edit("a red barn in snow", local_blend=None), attention=["red"]
    )
    lines = {path.name: text for path, text in shown}
    share = edited.results[0].mask.mean()
    assert lines == {
        "a-red-hat.png": SWAP,
        "a-red-hat-mask.png": f"where it may act: {share:.0%} of the picture",
        "a-red-hat-attention-red.png": "where 'red' is looked at",
        "a-red-barn-in-snow.png": "a red barn in snow",
        "a-red-barn-in-snow-attention-red.png": "where 'red' is looked at",
        "a-red-hat-strip.png": "all edits side by side",
    }
    assert all(path.parent == tmp_path / "edits" and path.is_file() for path, _ in shown)
    mask = np.asarray(Image.open(tmp_path / "edits" / "a-red-hat-mask.png").convert("L"))
    assert mask.shape == (32, 24) and mask.mean() / 255 == pytest.approx(float(share), abs=0.01)
    facts = json.loads((tmp_path / "edits" / "a-red-hat.json").read_text(encoding="utf-8"))
    assert facts["kind"] == "replace" and facts["source_prompt"] == SOURCE and facts["method"] == "null_text"
    assert facts["masked_share"] == pytest.approx(float(share), abs=1e-4)


@pytest.mark.parametrize("prompt", [SWAP, "a red hat (on a barn)", "一只白羊 \U0001f411 naïve"])
def test_an_edit_is_a_picture_whose_prompt_is_found(sd, tmp_path, prompt):
    _, shown = write(sd, tmp_path, Edit(prompt, local_blend=None))
    picture = read_picture(shown[0][0])
    assert picture.prompt == prompt and picture.prompt_source == "its PNG text 'prompt'"
    with Image.open(shown[0][0]) as image:
        assert image.text["source_prompt"] == SOURCE
        assert json.loads(image.text["settings"])["prompt"] == prompt


def test_nothing_is_overwritten(sd, tmp_path):
    _, first = write(sd, tmp_path, Edit(SWAP))
    before = [path.read_bytes() for path, _ in first]
    _, second = write(sd, tmp_path, Edit(SWAP, kind="plain"))
    assert [path.read_bytes() for path, _ in first] == before
    assert [path.name for path, _ in second] == [
        "a-red-hat-2.png",
        "a-red-hat-2-mask.png",
        "a-red-hat-strip-2.png",
    ]


def test_a_sweep_is_a_grid_for_each_prompt(sd, tmp_path):
    swept = {"guidance_scale": (2.0, 3.0), "self_replace": (0.0, 0.4)}
    edits = [
        Edit(prompt, local_blend=None, guidance_scale=w, self_replace=s)
        for prompt in (SWAP, "a red boat")
        for w in swept["guidance_scale"]
        for s in swept["self_replace"]
    ]
    _, shown = write(sd, tmp_path, *edits, swept=swept)
    names = [path.name for path, _ in shown]
    assert names[1] == "a-red-hat-guidance_scale-2-self_replace-0.4.png"
    assert names[-2:] == ["a-red-hat-sweep.png", "a-red-hat-sweep-2.png"]
    assert shown[-1][1] == "all values of guidance_scale and self_replace"


def test_names_of_files_fit_any_file_system(tmp_path):
    assert slug("A photo of: a HORSE, in/snow?") == "a-photo-of-a-horse-in-snow"
    assert slug("../..") == "edit" and slug("\U0001f411") == "edit"
    assert slug("羊" * 100) == "羊" * 26
    assert len(slug("a" * 100)) == 80
    (tmp_path / "horse.png").touch()
    (tmp_path / "horse-2.json").touch()
    assert free_name(tmp_path, "horse") == "horse-3"


def test_a_mask_of_a_tensor_is_named_as_such(sd, tmp_path):
    write(sd, tmp_path, Edit(SWAP, mask=torch.ones(32, 24)), original=False)
    facts = json.loads((tmp_path / "edits" / "a-red-hat.json").read_text(encoding="utf-8"))
    assert facts["mask"] == "tensor"
