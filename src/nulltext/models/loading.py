"""From what the user names to a model that is ready: checked, loaded, frozen, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nulltext.errors import UserError, first_line
from nulltext.imports import find_class, no_collection
from nulltext.models.base import DiffusionModel
from nulltext.models.device import DTYPES, find_device, find_precision
from nulltext.models.families import MODELS, NO_TRUE_GUIDANCE
from nulltext.models.folder.hub import find_folder
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import refuse
from nulltext.models.folder.weights import choose_kinds, load_part, quiet_libraries
from nulltext.models.shipped import SHIPPED

T5_TOKENS = 512  # T5 itself has no limit; the families that read fewer say so


@dataclass(frozen=True)
class LoadingOptions:
    """Which model is loaded, and how it is held in memory.

    Args:
        pretrained: The model: farmyard or farmyard-flow (shipped), a local diffusers folder, or a hub id.
        variant: Which weight files to take, such as fp16, where a model has several kinds.
        revision: Which version of a hub model to take: a branch, a tag, or a commit.
        family: The import path of a model family of your own, such as my.module.MyFamily.
        gradient_checkpointing: Less memory, a third more time.
        vae_tiling: Encode and decode in tiles; less memory for large pictures, faint seams.
        attention_slicing: Attend head by head; less memory, slower.
        offload: Keep the VAE and the text encoders on the CPU while they are idle.
    """

    pretrained: str = SHIPPED
    variant: str | None = None
    revision: str | None = None
    family: str | None = None
    gradient_checkpointing: bool = False
    vae_tiling: bool = False
    attention_slicing: bool = False
    offload: bool = False


def check_model(
    pretrained: str, variant: str | None = None, revision: str | None = None, family: str | None = None
) -> Path:
    """The folder of a model, checked as far as can be without loading its weights; the options of ``LoadingOptions``.

    Raises:
        UserError: No such model, a part missing or of another kind, pickle-only weights, an unknown family, or a
            farmyard file missing or damaged.
    """
    return _checked(LoadingOptions(pretrained, variant, revision, family))[1].path


def _checked(options: LoadingOptions) -> tuple[type[DiffusionModel], ModelFolder, dict[str, str | None]]:
    """The family, the folder, and the kind of weights of each part."""
    path = find_folder(options.pretrained, options.variant, options.revision)
    folder = ModelFolder.read(path, options.pretrained)
    name = options.family or folder.pipeline
    if not options.family and name not in MODELS:
        why = ": it has no true guidance, so no null text to learn; FlowEdit and RF-Inversion need none"
        known = f"{why if name in NO_TRUE_GUIDANCE else ''}; nulltext knows {', '.join(MODELS)}"
        raise UserError(f"{folder.name} is a {name or 'nameless pipeline'}{known}")
    family = find_class(name, MODELS, DiffusionModel, "--model.family")  # type: ignore[type-abstract]
    family.check(folder)
    return family, folder, choose_kinds(folder, list(family.parts_of(folder)), options.variant)


def load_model(
    pretrained: str = SHIPPED,
    options: LoadingOptions | None = None,
    device: str | torch.device = "cpu",
    *,
    precision: str | int | None = "32-true",
) -> DiffusionModel:
    """Loads a model, frozen.

    Args:
        pretrained: ``farmyard``, ``farmyard-flow``, a folder in the layout of ``save_pretrained``, or a hub id.
        options: How; their own ``pretrained`` is not read.
        device: Where the model lives: ``cpu``, ``cuda``, ``mps``, or ``auto``.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``: the type of the network's weights and arithmetic.

    Raises:
        UserError: As ``check_model``; or a device, a precision, or weights that cannot be used.
    """
    dtype, place = DTYPES[find_precision(precision)], find_device(device)
    # In bf16 the gradients of cuDNN's attention are not always finite (H100, torch 2.11).
    torch.backends.cuda.enable_cudnn_sdp(False)
    options = replace(options or LoadingOptions(), pretrained=pretrained)
    family, folder, kinds = _checked(options)
    with no_collection():
        pipe = _load_pipeline(family, folder, kinds, dtype)
    model = family(pipe, folder, kinds[family.denoiser_part])
    model.revision, model.family, model.offload = options.revision, options.family, options.offload
    if options.gradient_checkpointing:
        model.denoiser.enable_gradient_checkpointing()
        model.denoiser.train()  # diffusers checkpoints in train mode only; there is no dropout in these networks
    if options.vae_tiling:
        model.vae.enable_tiling()
    if options.attention_slicing:
        model.pipe.enable_attention_slicing()
    return model.to(place)


def _load_pipeline(
    family: type[DiffusionModel], folder: ModelFolder, kinds: Mapping[str, str | None], dtype: torch.dtype
) -> Any:
    """The diffusers pipeline of a family, with the parts that the family needs and no others."""
    import diffusers

    with quiet_libraries():
        pipeline = getattr(diffusers, family.pipeline)
    dtypes = {family.denoiser_part: dtype}
    parts = {
        part: load_part(folder, part, kinds.get(part), dtypes.get(part, torch.float32))
        for part in family.parts_of(folder)
    }
    for part in parts:
        if part.startswith("tokenizer"):
            _bound_length(parts[part], folder.config(part.replace("tokenizer", "text_encoder")))
    expected, optional = pipeline._get_signature_keys(pipeline)
    absent = {part: None for part in expected if part not in parts}
    options = {key: value for key, value in folder.options().items() if key in optional}
    if "safety_checker" in absent:
        options["requires_safety_checker"] = False
    try:
        return pipeline(**parts, **absent, **options)
    except (TypeError, ValueError) as error:
        raise refuse(folder, f"cannot be assembled ({first_line(error)})") from None


def _bound_length(tokenizer: Any, encoder: Mapping[str, Any]) -> None:
    """A tokenizer that says no length, or a longer one than its encoder reads, takes the encoder's."""
    longest = encoder.get("max_position_embeddings", T5_TOKENS if encoder.get("model_type") == "t5" else 77)
    tokenizer.model_max_length = min(tokenizer.model_max_length, longest)
