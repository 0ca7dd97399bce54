"""The model card: what the shipped model is, what it can and cannot do, and how to make it again."""

import json
from collections.abc import Sequence
from pathlib import Path

from nulltext.farmyard.weights import CHECKSUMS, MAKE_AGAIN
from nulltext.files import write_atomically

CARD = """\
---
library_name: diffusers
pipeline_tag: text-to-image
---

# The farmyard model

A small model of Stable Diffusion's shape, trained from scratch on drawn scenes of a farmyard. It exists so that
null-text inversion can be tried, tested and measured with no GPU and no model hub: whatever runs on it runs
unchanged on Stable Diffusion. Nothing of it comes from another model or from photographs.

## What it knows

64 x 64 pictures of one animal (sheep, horse, cow, chicken, pig, elk, dog, cat) in one of five colours, with or
without one of four hats, in one of five places, alone or next to one of four objects, as a photo or as a drawing.
Prompts read like "a photo of a white sheep with a red hat on a green meadow next to a tree". `vocabulary.txt` has
its {n_words} words, one a line, all lower case; any other is spelt from pieces it has no meaning for.

## How it is built

{parts}

All weights are fp16 safetensors; they lie in the repository, the UNet's large file too, because the program must work
where no model hub can be reached. The scheduler is Stable Diffusion's: scaled linear from 0.00085 to 0.012 over 1,000
steps, epsilon prediction, `steps_offset` 1. `StableDiffusionPipeline.from_pretrained` loads the folder with no code of
ours; `clip/` is a `CLIPModel`, the evaluator, and `editing.json` says what suits its edits.

## How it was trained

By `{make_again}`, with the settings in `configs/farmyard/`:

1. pictures: scenes with seeds from 0 up, drawn by `nulltext.farmyard.drawing`; for the VAE also pictures with the
   statistics of photographs (dead leaves, 1/f noise, gradients) from `nulltext.farmyard.textures`;
2. the VAE, on L1, MSE and differences of neighbouring pixels, with a faint KL term;
3. the CLIP, on captions of several lengths, most of each batch scenes that differ in the animal or the hat alone;
4. the UNet, on the VAE's latents and the frozen text tower, one caption in ten empty, min-SNR weighting with gamma 5;
   what is shipped is the moving average of its weights.

Seeds from 1,000,000 up are held out: no training sees them, and every figure below is measured on them.

## Figures

By `python -m nulltext.farmyard evaluate`, fp32; DDIM with 50 steps:

| | measured | asked | |
|---|---|---|---|
{figures}

PSNR and SSIM are means over pictures. "Reads" is zero-shot classification by the CLIP in `clip/` against the mean
embedding of a few dozen prompts; generated pictures are judged by the same CLIP, which has seen drawn ones only.

## What it cannot do

Anything else than the above: one animal, looking left, in the middle, at one size. It has no other words, cannot
count, cannot write, and knows no people. Photographs pass its VAE roughly and mean nothing to its UNet and CLIP. At
strong guidance colours and contrasts are overdone.

## sha256

| file | sha256 |
|---|---|
{sums}
"""


def describe_parts(folder: Path) -> str:
    """One line a network: class, widths, size of the file."""
    lines = []
    for part in ("vae", "text_encoder", "unet", "clip"):
        config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        name = config.get("_class_name") or config["architectures"][0]
        size = sum(path.stat().st_size for path in (folder / part).glob("*.safetensors")) / 2**20
        channels = config.get("block_out_channels")
        width = f"channels {tuple(channels)}" if channels else f"width {_width(config)}"
        lines.append(f"- `{part}`: {name}, {width}, {size:.1f} MiB")
    return "\n".join(lines)


def _width(config: dict[str, object]) -> object:
    text = config.get("text_config", config)
    assert isinstance(text, dict)
    return text["hidden_size"]


def write_card(folder: Path, figures: Sequence[str]) -> None:
    """Write README.md into a farmyard folder.

    Args:
        folder: The folder that was exported.
        figures: Rows of the table of figures.
    """
    sums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    weights = [f"| `{name}` | `{digest}` |" for name, digest in sums.items() if name.endswith(".safetensors")]
    text = CARD.format(
        n_words=len((folder / "vocabulary.txt").read_text(encoding="utf-8").split()),
        parts=describe_parts(folder),
        make_again=MAKE_AGAIN,
        figures="\n".join(figures) or "| not measured yet | | | |",
        sums="\n".join(weights),
    )

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_atomically(folder / "README.md", write)
