"""The trained stages become diffusers folders in fp16, with the evaluator beside the first."""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from nulltext.farmyard.recipe.data.tokenizer import captions_of
from nulltext.farmyard.recipe.stages.frozen import TextTower, load_vae, missing, quiet
from nulltext.farmyard.world import SHIPPED, world_of
from nulltext.farmyard.world.captions import vocabulary
from nulltext.models.shipped import CHECKSUMS, FLOW, shipped_folder
from nulltext.models.shipped import SHIPPED as SHIPPED_NAME
from nulltext.models.vocabulary import VOCABULARY

NAMES = {"unet": SHIPPED_NAME, "flow": FLOW}
"""The name of each network."""


def unet_pipeline(work: Path) -> Any:
    """The `StableDiffusionPipeline` of the trained stages, in fp16."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    from nulltext.farmyard.recipe.stages.unet import SCHEDULER_CONFIG

    return StableDiffusionPipeline(
        vae=load_vae(work).half(),
        text_encoder=CLIPTextModel.from_pretrained(work / "clip").half(),
        tokenizer=TextTower.load(work).tokenizer,
        unet=UNet2DConditionModel.from_pretrained(work / "unet").half(),
        scheduler=DDIMScheduler(**SCHEDULER_CONFIG),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def flow_pipeline(work: Path) -> Any:
    """The `StableDiffusion3Pipeline` of the trained stages, in fp16: one tower as both of its CLIPs, no T5."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    from nulltext.farmyard.recipe.stages.flow import SCHEDULER_CONFIG

    tower = TextTower.load(work)
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel.from_pretrained(work / "flow").half(),
        scheduler=FlowMatchEulerDiscreteScheduler(**SCHEDULER_CONFIG),
        vae=load_vae(work).half(),
        text_encoder=tower.model.half(),
        tokenizer=tower.tokenizer,
        text_encoder_2=tower.model,
        tokenizer_2=tower.tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


PIPELINES = {"unet": unet_pipeline, "flow": flow_pipeline}


def export_all(work: Path) -> list[Path]:
    """Export every network that has been trained: what is shipped into the package, others to `work`/export."""
    size = load_vae(work).config.sample_size
    made = []
    for stage, name in NAMES.items():
        if (work / stage / "config.json").is_file():
            shipped = stage == "flow" or size == SHIPPED.size
            made.append(export(work, shipped_folder(name) if shipped else work / "export" / name, stage))
    return made


def export(work: Path, folder: Path, stage: str = "unet") -> Path:
    """Write a model's folder: pipeline, words, checksums. An old one gives way only to a whole one.

    Args:
        work: Folder of the trained stages.
        folder: Where the model goes.
        stage: Which network: unet or flow; the evaluator comes beside it.

    Returns:
        The folder.

    Raises:
        UserError: A stage has not been trained yet.
    """
    if not (work / stage / "config.json").is_file():
        raise missing(stage, work)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    size = load_vae(work).config.sample_size
    with quiet():
        PIPELINES[stage](work).save_pretrained(new)
        if folder != shipped_folder(FLOW):  # it has the UNet's
            _save_evaluator(work, new / "clip", size)
    for path in new.glob("*/config.json"):
        _tidy(path)
    for path in new.rglob("*.safetensors"):
        path.chmod(0o644)  # they are written for their owner alone
    _write(new / VOCABULARY, "\n".join(vocabulary(captions_of(world_of(size)))))
    _write(new / CHECKSUMS, json.dumps(checksums(new), indent=2))
    card = folder / "README.md"
    if card.is_file():
        shutil.copy(card, new)
    shutil.rmtree(folder, ignore_errors=True)
    new.rename(folder)
    return folder


def _save_evaluator(work: Path, folder: Path, size: int) -> None:
    """The whole CLIP, or what it became in `work`/evaluator, and how it takes pictures: in [-1, 1], as the VAE does."""
    from transformers import CLIPImageProcessorPil, CLIPModel

    went_on = work / "evaluator"  # apart, since networks are trained on the text tower of `clip`
    trained = went_on if went_on.is_dir() else work / "clip"
    CLIPModel.from_pretrained(trained, dtype=torch.float16).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    ).save_pretrained(folder)


def _write(path: Path, text: str) -> None:
    path.write_text(text + "\n", encoding="utf-8")


def _tidy(config: Path) -> None:
    """Drop the place of training from a config, and let transformers widen fp16 on loading, as diffusers does."""
    settings = json.loads(config.read_text(encoding="utf-8"))
    settings.pop("_name_or_path", None)
    for part in (settings, *(value for value in settings.values() if isinstance(value, dict))):
        if "dtype" in part:
            part["dtype"] = "float32"  # else a plain load mixes fp16 and fp32, which no CPU multiplies
    _write(config, json.dumps(settings, indent=2, sort_keys=True))


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every weight file and of everything else that loading reads, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".txt"))
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != CHECKSUMS
    }
