"""The model card: what a model is, what it can and cannot do, and how to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltext.farmyard.world import World, world_of
from nulltext.files import write_atomically
from nulltext.models.shipped import CHECKSUMS
from nulltext.models.vocabulary import VOCABULARY

CARD = """\
---
library_name: diffusers
pipeline_tag: text-to-image
---

# The farmyard model: {title}

A small model of {family}'s shape, trained from scratch on drawn scenes of a farmyard. It exists so that null-text
inversion can be tried, tested and measured with no GPU and no model hub: whatever runs on it runs unchanged on
{family}. Nothing of it comes from another model or from photographs.

## What it knows

{size} x {size} pictures of one animal. A caption says:

{words}

Prompts read like "{example}".
`vocabulary.txt` has its {n_words} words, one a line, all lower case; any other is spelt from pieces it has no meaning
for. What a caption passes over is not there: no hat, no object, neither rain nor snowfall,
day, neither small nor big, looking to the left. Only colour, place and style may be left open.

## How it is built

{parts}

All weights are fp16 safetensors; they lie in the repository, because the program must work where no model hub can be
reached. {scheduler}
`{load}` loads the folder with no code of ours. {beside}

## How it was trained

By `python -m nulltext.farmyard train`, with the settings in `configs/farmyard/{size}/`, whose first lines say which
stages went on afterwards, and how:

1. pictures: scenes with seeds from 0 up, drawn by `nulltext.farmyard.world`; for the VAE also pictures with the
   statistics of photographs (dead leaves, 1/f noise, gradients) from `nulltext.farmyard.recipe.data.textures`;
2. the VAE, on L1, MSE and differences of neighbouring pixels, with a faint KL term;
3. the CLIP, on captions in many phrasings, part of each batch scenes that differ in one thing alone, and on naming
   each attribute from the vision tower, by heads that are not kept;
4. {last}

Seeds from 1,000,000 up are held out: no training sees them, and every figure below is measured on them.

## Figures

By `python -m nulltext.farmyard evaluate`, fp32; {sampler} with 50 steps:

| | measured | target | |
|---|---|---|---|
{figures}

PSNR and SSIM are means over pictures. "CLIP accuracy" is zero-shot classification by the farmyard's CLIP against the
mean embedding of a few dozen captions; generated pictures are judged by the same CLIP, which has seen drawn ones only.

## What it cannot do

Anything else than the above: one animal, in the middle. It has no other words, cannot count, cannot write, and knows no
people. Photographs pass its VAE roughly and mean nothing to its network and CLIP. At strong guidance colours and
contrasts are overdone.

## sha256

| file | sha256 |
|---|---|
{sums}
"""

UNET = {
    "title": "UNet",
    "family": "Stable Diffusion",
    "scheduler": (
        "The scheduler is Stable Diffusion's: scaled linear from 0.00085\nto 0.012 over 1,000 steps, "
        "epsilon prediction, `steps_offset` 1."
    ),
    "load": "StableDiffusionPipeline.from_pretrained",
    "beside": "`clip/` is a `CLIPModel`, the evaluator.",
    "last": (
        "the UNet, on the VAE's latents and the frozen text tower, one caption in ten empty, min-SNR weighting with\n"
        "   gamma 5; what is exported is the moving average of its weights."
    ),
    "sampler": "DDIM",
}
FLOW = {
    "title": "flow transformer",
    "family": "Stable Diffusion 3",
    "scheduler": "The scheduler is Euler's, with times as they are (shift 1).",
    "load": "StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None)",
    "beside": (
        "One text tower\nserves as both of its CLIPs, and there is no T5; the pipeline puts rows of zeros in its "
        "place, 256 or as many as\n`max_sequence_length` says. The model knows 256 and none."
    ),
    "last": (
        "the transformer, as a rectified flow on the VAE's latents and the frozen text tower, one caption in ten\n"
        "   empty (states and pooled output), half of the times uniform and half logit-normal; what is exported is\n"
        "   the moving average of its weights."
    ),
    "sampler": "Euler",
}


def describe_words(world: World) -> str:
    """One line a field of a world: what it can be."""
    return "\n".join(
        f"- {name}: {', '.join('none' if value is None else value for value in values)}"
        for name, values in world.choices.items()
    )


def describe_parts(folder: Path) -> str:
    """One line a network: class, widths, size of the file."""
    lines = []
    for part in ("vae", "text_encoder", "text_encoder_2", "unet", "transformer", "clip"):
        if not (folder / part / "config.json").is_file():
            continue
        config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        name = config.get("_class_name") or config["architectures"][0]
        size = sum(path.stat().st_size for path in (folder / part).glob("*.safetensors")) / 2**20
        lines.append(f"- `{part}`: {name}, {_width(config)}, {size:.1f} MiB")
    return "\n".join(lines)


def _width(config: dict[str, Any]) -> str:
    if channels := config.get("block_out_channels"):
        return f"channels {tuple(channels)}"
    if heads := config.get("attention_head_dim"):
        return f"width {heads * config['num_attention_heads']}, {config['num_layers']} layers"
    return f"width {config.get('text_config', config)['hidden_size']}"


def write_card(folder: Path, figures: Sequence[str]) -> None:
    """Write README.md into a farmyard folder.

    Args:
        folder: The folder that was exported.
        figures: Rows of the table of figures.
    """
    sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    weights = [f"| `{name}` | `{digest}` |" for name, digest in sums.items() if name.endswith(".safetensors")]
    vae = json.loads((folder / "vae" / "config.json").read_text(encoding="utf-8"))
    world = world_of(vae["sample_size"])
    text = CARD.format(
        **(FLOW if (folder / "transformer").is_dir() else UNET),
        size=world.size,
        words=describe_words(world),
        example=world.caption(world.random_scene(1_000_007)),
        n_words=len((folder / VOCABULARY).read_text(encoding="utf-8").split()),
        parts=describe_parts(folder),
        figures="\n".join(figures) or "| not measured yet | | | |",
        sums="\n".join(weights),
    )

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(folder / "README.md", write)
