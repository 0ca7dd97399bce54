"""The trained stages become one diffusers folder in fp16, with the evaluator beside it."""

import dataclasses
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from nulltext.backbone import EDITING, EditDefaults
from nulltext.farmyard.clip import WORLD_FOR_WORDS
from nulltext.farmyard.scene import random_scene
from nulltext.farmyard.unet import SCHEDULER_CONFIG, load_frozen
from nulltext.farmyard.weights import CHECKSUMS, PRETRAINED, VOCABULARY
from nulltext.farmyard.words import captions, vocabulary

EDIT_DEFAULTS = EditDefaults(masked_guidance=1.35, masked_windows=0.0, detail_steps=8)
"""By the table of ``benchmarks/edits.py``: under a mask it needs less guidance, and the mask alone holds the layout."""


def assemble(work: Path) -> Any:
    """The `StableDiffusionPipeline` of the trained stages, in fp16."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    frozen = load_frozen(work)
    return StableDiffusionPipeline(
        vae=frozen["vae"].half(),
        text_encoder=frozen["text"].half(),
        tokenizer=frozen["tokenizer"],
        unet=UNet2DConditionModel.from_pretrained(work / "unet").half(),
        scheduler=DDIMScheduler(**SCHEDULER_CONFIG),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def export(work: Path, folder: Path = PRETRAINED) -> Path:
    """Write the shipped folder: pipeline, evaluator, words, checksums. The old one gives way only to a whole one.

    Args:
        work: Where the trained stages are.
        folder: Where the shipped folder is to be.

    Returns:
        The folder.
    """
    from transformers import CLIPImageProcessorPil, CLIPModel

    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    assemble(work).save_pretrained(new)
    CLIPModel.from_pretrained(work / "clip", dtype=torch.float16).save_pretrained(new / "clip")
    side = {"height": 64, "width": 64}
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 64}, crop_size=side, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    processor.save_pretrained(new / "clip")  # it reads [-1, 1], as the VAE does
    for part in ("text_encoder", "clip", "vae", "unet"):
        _tidy(new / part / "config.json")
    for path in new.rglob("*.safetensors"):
        path.chmod(0o644)  # they are written for their owner alone
    world = captions([random_scene(seed) for seed in range(WORLD_FOR_WORDS)])
    words = vocabulary(text for phrasings in world for text in phrasings)
    (new / VOCABULARY).write_text("\n".join(words) + "\n", encoding="utf-8")
    (new / EDITING).write_text(
        json.dumps(dataclasses.asdict(EDIT_DEFAULTS), indent=2) + "\n", encoding="utf-8"
    )
    (new / CHECKSUMS).write_text(json.dumps(checksums(new), indent=2) + "\n", encoding="utf-8")
    card = folder / "README.md"
    if card.is_file():
        shutil.copy(card, new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def _tidy(config: Path) -> None:
    """Drop the place of training from a config, and let transformers widen fp16 on loading, as diffusers does."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"  # else a plain load mixes fp16 and fp32, which no CPU multiplies
    config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every weight file and of everything else that loading reads, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".txt"))
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != CHECKSUMS
    }
