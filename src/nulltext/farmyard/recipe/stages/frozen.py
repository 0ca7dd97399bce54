"""The finished stages that a later one builds on."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltext.errors import UserError


def missing(stage: str, work: Path) -> UserError:
    """What to say when an earlier stage has not been trained."""
    return UserError(f"there is no {stage} in {work}; train it first: the {stage}.yaml beside this config")


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers and diffusers pass over what a folder has besides, such as a CLIP's vision tower."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    before = of_transformers.get_verbosity(), of_diffusers.get_verbosity()
    of_transformers.set_verbosity_error()
    of_diffusers.set_verbosity_error()
    try:
        yield
    finally:
        of_transformers.set_verbosity(before[0])
        of_diffusers.set_verbosity(before[1])


def load_vae(work: Path) -> Any:
    """The trained autoencoder.

    Raises:
        UserError: It has not been trained yet.
    """
    from diffusers import AutoencoderKL

    if not (work / "vae" / "config.json").is_file():
        raise missing("vae", work)
    with quiet():
        return AutoencoderKL.from_pretrained(work / "vae").eval().requires_grad_(False)


@dataclass
class TextTower:
    """The CLIP's text tower: its states condition the networks."""

    model: Any  # CLIPTextModelWithProjection
    tokenizer: Any

    @classmethod
    def load(cls, work: Path) -> "TextTower":
        """The trained one.

        Raises:
            UserError: The CLIP has not been trained yet.
        """
        from transformers import CLIPTextModelWithProjection, CLIPTokenizer

        if not (work / "clip" / "config.json").is_file():
            raise missing("clip", work)
        with quiet():
            model = CLIPTextModelWithProjection.from_pretrained(work / "clip").eval().requires_grad_(False)
        return cls(model, CLIPTokenizer.from_pretrained(work / "clip"))

    @property
    def width(self) -> int:
        """Width of its states."""
        return int(self.model.config.hidden_size)

    @torch.no_grad()
    def _read(self, texts: list[str], device: torch.device) -> Any:
        ids = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        with torch.autocast(device.type, enabled=False):  # as it will be read when pictures are made
            return self.model.to(device)(input_ids=ids.to(device), output_hidden_states=True)

    def last(self, texts: list[str], device: torch.device) -> Tensor:
        """What Stable Diffusion takes: the last layer's states, normalised, (B, L, d) fp32."""
        return self._read(texts, device).last_hidden_state.float()

    def before_last(self, texts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """What Stable Diffusion 3 takes: states of the layer before the last (B, L, d), and the embedding (B, d)."""
        read = self._read(texts, device)
        return read.hidden_states[-2].float(), read.text_embeds.float()
