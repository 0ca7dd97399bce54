"""What the method needs of each part of a model: its class and its config, checked before weights load.

Every check raises one ``UserError`` that names the model, what it has, and what to take instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nulltext.errors import UserError
from nulltext.models.folder.index import UNUSED_PARTS, ModelFolder

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
ANY_CLASS: tuple[str, ...] = ()
PREDICTIONS = ("epsilon", "v_prediction")
REFUSED_INPUTS = {
    "time_cond_proj_dim": "is distilled (LCM): it is told the guidance scale and has no null text to learn; take the "
    "model that it was distilled from",
    "class_embed_type": "wants a class beside the prompt (an upscaler or unCLIP); take a plain text-to-image model",
    "num_class_embeds": "wants a class beside the prompt (an upscaler); take a plain text-to-image model",
    "encoder_hid_dim_type": "wants a picture beside the prompt; take a plain text-to-image model",
}
"""Inputs of a UNet that null-text inversion cannot give."""


def refuse(folder: ModelFolder, reason: str) -> UserError:
    """The error of a model that cannot be used, in one form."""
    return UserError(f"the model {folder.name} {reason}")


def check_parts(folder: ModelFolder, wanted: Mapping[str, Sequence[str]]) -> None:
    """Checks that each part is there, of one of the classes that may serve (``ANY_CLASS``: all), and no own code."""
    for part, classes in wanted.items():
        entry = folder.part(part)
        if entry is None:
            raise refuse(folder, f"has no {part} (null in model_index.json); take one that has all its parts")
        if not (folder.path / part).is_dir():
            raise refuse(folder, f"lacks its {part} folder; download it again")
        config = folder.config(part)
        found = {entry[1], str(config.get("_class_name", entry[1]))}
        if classes and (other := found - set(classes)):
            raise refuse(
                folder,
                f"has {min(other)} as its {part}, where nulltext needs {classes[0]}; take another model",
            )
    for part in folder.index:
        if part not in UNUSED_PARTS:
            folder.part(part)


def check_diffusion_scheduler(folder: ModelFolder) -> None:
    """Refuses schedulers of EDM and of flows, which have no betas, and predictions of neither the noise nor v."""
    config = folder.config("scheduler")
    name = str(config.get("_class_name", (folder.part("scheduler") or ("", "its scheduler"))[1]))
    if not {"beta_start", "beta_schedule", "trained_betas"} & config.keys():
        raise refuse(folder, f"has {name} as its scheduler, which has no betas; DDIM inversion needs them")
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS or config.get("use_flow_sigmas"):
        said = "flow sigmas" if prediction in PREDICTIONS else repr(prediction)
        raise refuse(
            folder, f"predicts {said}; DDIM inversion of this family needs {' or '.join(PREDICTIONS)}"
        )


def check_unet(folder: ModelFolder, addition: str | None, text_encoders: Sequence[str]) -> None:
    """Checks that the UNet has no other inputs, and that its sizes fit the other parts.

    Args:
        folder: The model.
        addition: The ``addition_embed_type`` of the family.
        text_encoders: The encoders whose hidden states, side by side, the UNet attends to.
    """
    unet, vae = folder.config("unet"), folder.config("vae")
    for key, reason in REFUSED_INPUTS.items():
        if unet.get(key) is not None:
            raise refuse(folder, reason)
    if unet.get("addition_embed_type") != addition:
        raise refuse(
            folder,
            f"has a UNet with addition_embed_type {unet.get('addition_embed_type')!r}, where its family has "
            f"{addition!r}; take another model",
        )
    channels = vae.get("latent_channels", 4)
    if unet.get("in_channels", 4) != channels:
        raise refuse(folder, "is an inpainting or depth model; take its plain text-to-image sibling")
    if unet.get("out_channels", 4) != channels:
        raise refuse(folder, "predicts a variance beside the noise; take a plain text-to-image model")
    if square_side(unet.get("sample_size")) is None:
        raise refuse(
            folder,
            f"has sample_size {unet.get('sample_size')!r} in unet/config.json; write the side of its latents there, "
            "such as 64 for 512 pixels",
        )
    _check_text_width(folder, unet.get("cross_attention_dim", 1280), text_encoders)


def square_side(sample_size: Any) -> int | None:
    """The side of a ``sample_size``: a number, or a list whose smaller one counts; None for anything else."""
    sides = sample_size if isinstance(sample_size, list | tuple) else [sample_size]
    whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side > 0]
    return min(whole) if whole and len(whole) == len(sides) <= 2 else None


def _check_text_width(folder: ModelFolder, width: Any, text_encoders: Sequence[str]) -> None:
    widths = [folder.config(part).get("hidden_size", 512) for part in text_encoders]
    if not isinstance(width, int):
        raise refuse(folder, f"has several widths of text ({width}); take a model with one")
    if width != sum(widths):
        raise refuse(
            folder,
            f"has a UNet that attends to text of width {width}, but its text encoders give "
            f"{' + '.join(map(str, widths))}; its parts are of different models",
        )
