"""Weight files: which kinds a part has, which one is read, whether it fills the network, and its fingerprint."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from nulltext.errors import UserError, first_line
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import refuse

NAME = re.compile(
    r"(?:diffusion_pytorch_)?model(?:\.(?P<variant>[^.]+?))?(?:-\d+-of-\d+)?(?:\.(?P<old>[^.]+))?\.safetensors"
)
"""A weight file: plain, of a variant, or a shard of either (the variant after the shard in older files)."""
WEIGHTLESS = ("scheduler", "tokenizer")


def kinds_of(part: Path) -> dict[str | None, list[Path]]:
    """The weight files of a part by variant; None is the plain kind."""
    kinds: dict[str | None, list[Path]] = {}
    for file in sorted(part.glob("*.safetensors")):
        if match := NAME.fullmatch(file.name):
            kinds.setdefault(match["variant"] or match["old"], []).append(file)
    return kinds


def choose_kinds(folder: ModelFolder, parts: Sequence[str], variant: str | None) -> dict[str, str | None]:
    """Which kind of weight files is read for each part that has weights.

    The variant where a part has it, else the plain kind. The only kind of a part is read as it is.

    Raises:
        UserError: Several kinds and none that was named, pickles only, or no weights.
    """
    chosen: dict[str, str | None] = {}
    for part in parts:
        if part.startswith(WEIGHTLESS):
            continue
        kinds = kinds_of(folder.path / part)
        if not kinds:
            raise _no_weights(folder, part)
        fitting = [kind for kind in (variant, None) if kind in kinds] or list(kinds)
        if len(fitting) > 1 and variant not in kinds and None not in kinds:
            names = " or ".join(f"--model.variant {kind}" for kind in sorted(map(str, kinds)))
            raise refuse(folder, f"has several kinds of weights in {part}; choose one: {names}")
        chosen[part] = fitting[0]
    if variant is not None and variant not in chosen.values():
        there = ", ".join(sorted({kind or "plain" for kind in chosen.values()}))
        warnings.warn(
            f"{folder.name} has no {variant} weights (--model.variant); its {there} ones are read",
            stacklevel=2,
        )
    return chosen


def _no_weights(folder: ModelFolder, part: str) -> UserError:
    pickles = [file for end in ("bin", "ckpt", "pt") for file in (folder.path / part).glob(f"*.{end}")]
    if pickles:
        return UserError(
            f"{pickles[0]} is a pickle, which can run code when it is opened; convert the model to safetensors "
            "(save_pretrained(..., safe_serialization=True)) or take one that has them"
        )
    return refuse(folder, f"has no weights in {part}; download it again")


def load_part(folder: ModelFolder, part: str, kind: str | None, dtype: torch.dtype) -> Any:
    """One part of a model, every parameter of it from its file.

    Args:
        folder: The model.
        part: Its name, such as ``unet``.
        kind: Which weight files, see ``choose_kinds``.
        dtype: The type of the weights.

    Raises:
        UserError: The files are damaged, or do not hold what the config names.
    """
    library, name = folder.part(part) or ("", "")
    options: dict[str, Any] = {"local_files_only": True}
    weighty = not part.startswith(WEIGHTLESS)
    if weighty:
        options |= {"dtype": dtype, "variant": kind, "use_safetensors": True, "output_loading_info": True}
    if weighty and library == "diffusers":
        options["low_cpu_mem_usage"] = find_spec("accelerate") is not None
    try:
        with quiet_libraries():
            loaded = getattr(import_module(library), name).from_pretrained(str(folder.path / part), **options)
    except MemoryError:
        raise
    except Exception as error:
        raise refuse(
            folder, f"cannot be loaded: its {part} ({first_line(error)}); download it again"
        ) from None
    if not weighty:
        return loaded
    model, info = loaded
    _check_filled(folder, part, info)
    if model.dtype != dtype:  # without accelerate, diffusers leaves some networks in fp32
        model.to(dtype)
    return model.requires_grad_(False).eval()


def _check_filled(folder: ModelFolder, part: str, info: Mapping[str, Any]) -> None:
    missing = sorted(map(str, info.get("missing_keys", ())))
    unused = sorted(map(str, info.get("unexpected_keys", ())))
    if any("lora" in key.lower() or "base_layer" in key for key in unused):
        raise refuse(
            folder,
            f"holds a LoRA inside its {part} that was not unloaded; before saving call pipe.fuse_lora() and "
            "pipe.unload_lora_weights()",
        )
    if missing:
        raise refuse(
            folder,
            f"lacks {len(missing)} parameters of its {part}, such as {missing[0]}, which would stay random; "
            "download or convert it again",
        )
    if unused and not part.startswith("text_encoder"):  # layers that an encoder does not use do no harm
        raise refuse(
            folder,
            f"holds {len(unused)} parameters in its {part} that its config does not name, such as {unused[0]}; "
            "weights and config are of different models",
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Loading takes a second or two: no bars and tables of other libraries; what matters is said in one line."""
    import diffusers
    import transformers

    loggers: list[Any] = [diffusers.utils.logging, transformers.utils.logging]
    before = [logging.get_verbosity() for logging in loggers]
    for logging in loggers:
        logging.disable_progress_bar()
        logging.set_verbosity_error()
    try:
        yield
    finally:
        for logging, level in zip(loggers, before, strict=True):
            logging.set_verbosity(level)


def fingerprint(files: Sequence[Path]) -> str:
    """A sha256 that tells weights apart: sizes, headers and 64 blocks of 1 MiB spread over the files.

    Names are not in it: identical copies have one fingerprint.
    """
    digest = hashlib.sha256()
    for file in files:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            for k in range(64):
                stream.seek(size * k // 64)
                digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def all_fingerprints(part: Path) -> set[str]:
    """The fingerprints of every kind of weights in a part, and of its files as nulltext 1.0 grouped them."""
    files = sorted(part.glob("*.safetensors"))
    groups = [*kinds_of(part).values(), [file for file in files if ".fp16" not in file.name] or files]
    return {fingerprint(group) for group in groups}
