"""The farmyard's CLIP: its text tower conditions the UNet, the whole of it judges pictures offline."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor

from nulltext.farmyard.data import to_pixels
from nulltext.farmyard.reading import Reader
from nulltext.farmyard.scene import CAPTION_VARIANTS, HELD_OUT_SEEDS, random_scene
from nulltext.farmyard.training import adamw_and_schedule, generator_of_step
from nulltext.farmyard.words import MAX_TOKENS, captions, train_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

WORLD_FOR_WORDS = 4000
"""Scenes whose captions train the tokenizer: enough for every word to come up."""


def contrastive_loss(image: Tensor, text: Tensor, own: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy both ways, where several pictures may share one text (Yang et al., arXiv 2204.03610, eq. 1).

    Args:
        image: (B, d) unit embeddings.
        text: (U, d) unit embeddings of the texts, each text once.
        own: (B,) which text is each picture's own.
        scale: Inverse temperature.

    Returns:
        The mean of picture-to-text and text-to-picture losses.
    """
    logits = scale * image @ text.T  # (B, U)
    to_text = F.cross_entropy(logits, own)
    positive = F.one_hot(own, len(text)).to(logits)  # (B, U)
    log_share = logits.log_softmax(dim=0) * positive
    to_image = -(log_share.sum(dim=0) / positive.sum(dim=0)).mean()
    return (to_text + to_image) / 2


def make_clip(tokenizer: "CLIPTokenizer", width: int, text_layers: int, vision_layers: int) -> "CLIPModel":
    """An untrained CLIP for 64x64 pictures in patches of 8 and prompts of `MAX_TOKENS` tokens."""
    from transformers import CLIPConfig, CLIPModel

    shape = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_attention_heads": 4,
        "projection_dim": width,
    }
    text = {
        "num_hidden_layers": text_layers,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"num_hidden_layers": vision_layers, "image_size": 64, "patch_size": 8}
    return CLIPModel(CLIPConfig(text_config=shape | text, vision_config=shape | vision, projection_dim=width))


class FarmyardCLIP(L.LightningModule):
    """Trains a `CLIPModel` on scenes and their captions.

    Args:
        work: Where everything is kept; the finished model and its tokenizer are written to its `clip`.
        width: Width of both towers and of the common space.
        text_layers: Layers of the text tower.
        vision_layers: Layers of the vision tower.
        lr: Learning rate at its highest.
        steps: Optimiser steps of the whole training.
        warm_up: Optimiser steps of linear warm-up.
        flat: Share of the training before the learning rate falls.
        noise: Largest deviation of the noise added to pixels, so that fine grain is no clue.
        seed: Seed of phrasing and noise.
    """

    def __init__(
        self,
        work: Path = Path("lightning_logs/farmyard"),
        width: int = 128,
        text_layers: int = 3,
        vision_layers: int = 4,
        lr: float = 1e-3,
        steps: int = 1000,
        warm_up: int = 50,
        flat: float = 0.1,
        noise: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.noise, self.seed = work / "clip", noise, seed
        self.lr, self.steps, self.warm_up, self.flat = lr, steps, warm_up, flat
        world = captions([random_scene(seed) for seed in range(WORLD_FOR_WORDS)])
        self.tokenizer = train_tokenizer(text for phrasings in world for text in phrasings)
        self.clip = make_clip(self.tokenizer, width, text_layers, vision_layers)

    def embed_pictures(self, pixels: Tensor) -> Tensor:
        """(B, 3, 64, 64) in [-1, 1] to (B, d) unit embeddings."""
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.clip.visual_projection(pooled).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Texts to (U, d) unit embeddings."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(
            self.device
        )
        pooled = self.clip.text_model(input_ids=tokens.input_ids).pooler_output
        return F.normalize(self.clip.text_projection(pooled).float(), dim=-1)

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Match pictures with their full captions and with one shorter phrasing, the same for all."""
        generator = generator_of_step(self.seed, self.global_step)
        pixels = to_pixels(batch["picture"])  # (B, 3, 64, 64)
        strength = self.noise * torch.rand(len(pixels), 1, 1, 1, generator=generator)
        pixels = pixels + strength.to(pixels) * torch.randn(pixels.shape, generator=generator).to(pixels)
        image = self.embed_pictures(pixels)
        variant = int(torch.randint(1, CAPTION_VARIANTS, (), generator=generator))
        scale = self.clip.logit_scale.clamp(max=4.6).exp()
        losses = {}
        for name, phrasing in (("full", 0), ("short", variant)):
            texts = [phrasings[phrasing] for phrasings in batch["captions"]]
            unique = list(dict.fromkeys(texts))
            own = torch.tensor([unique.index(text) for text in texts], device=self.device)
            losses[name] = contrastive_loss(image, self.embed_texts(unique), own, scale)
        self.log_dict({f"clip/loss_{name}": loss for name, loss in losses.items()})
        return losses["full"] + losses["short"]

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """How much of what held-out scenes show it reads."""
        from nulltext.farmyard.cache import draw_seed

        seeds = HELD_OUT_SEEDS[:256]
        pixels = to_pixels(torch.stack([torch.tensor(draw_seed(seed)) for seed in seeds]))
        image = self.embed_pictures(pixels.to(self.device))
        shares = Reader(self.embed_texts).shares_read(image, [random_scene(seed) for seed in seeds])
        self.log_dict({f"clip/reads_{name}": share for name, share in shares.items()})

    def configure_optimizers(self) -> Any:
        """AdamW with a little decay."""
        return adamw_and_schedule(self.clip.parameters(), self.lr, self.steps, self.warm_up, self.flat, 0.02)

    def on_fit_end(self) -> None:
        """Write the model and its tokenizer once it is trained to the end."""
        if self.global_step >= self.steps:
            self.clip.save_pretrained(self.folder)
            self.tokenizer.save_pretrained(self.folder)
