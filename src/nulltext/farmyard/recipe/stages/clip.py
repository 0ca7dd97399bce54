"""The farmyard's CLIP: its text tower conditions the networks, the whole of it judges pictures offline."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nulltext.farmyard.recipe.data.cache import held_out_pictures
from nulltext.farmyard.recipe.data.pixels import to_pixels
from nulltext.farmyard.recipe.data.stage_data import DEFAULT_WORK
from nulltext.farmyard.recipe.data.tokenizer import MAX_TOKENS, captions_of, train_tokenizer
from nulltext.farmyard.recipe.figures.reading import Reader
from nulltext.farmyard.recipe.stages.training import Learning, generator_of_step
from nulltext.farmyard.world.scene import HELD_OUT_SEEDS, Scene
from nulltext.farmyard.world.worlds import world_of

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTokenizer

LEARNING = Learning(steps=1000, warm_up=50, flat=0.1, weight_decay=0.02)
NOISE = 0.15
"""Largest deviation of the noise added to pixels in training, so that fine grain is no clue."""


@dataclass(frozen=True)
class Tower:
    """The shape of a tower: its width, layers and heads."""

    width: int = 128
    layers: int = 4
    heads: int = 4

    def config(self, projection: int) -> dict[str, int]:
        """As transformers names it."""
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "projection_dim": projection,
        }


def contrastive_loss(image: Tensor, text: Tensor, own: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy both ways, where several pictures may have one text (Yang et al., arXiv 2204.03610, eq. 1).

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


def make_clip(tokenizer: "CLIPTokenizer", text: Tower, vision: Tower, size: int, patch: int) -> "CLIPModel":
    """An untrained CLIP for pictures of a size in patches of a size, and prompts as long as the tokenizer's."""
    from transformers import CLIPConfig, CLIPModel

    words = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    pictures = {"image_size": size, "patch_size": patch}
    config = CLIPConfig(
        text_config=text.config(text.width) | words,
        vision_config=vision.config(text.width) | pictures,
        projection_dim=text.width,
    )
    return CLIPModel(config)


class FarmyardCLIP(L.LightningModule):
    """Trains a `CLIPModel` on scenes and their captions.

    Args:
        work: Folder of the whole training; the finished model and its tokenizer are written to its `clip`.
        size: Side of the pictures.
        text: Shape of the text tower; its width is the common space's, too.
        vision: Shape of the vision tower.
        patch: Side of the vision tower's patches in pixels.
        learning: How it learns.
        seed: Seed of phrasing and noise.
    """

    def __init__(
        self,
        work: Path = DEFAULT_WORK,
        size: int = 128,
        text: Tower = Tower(128, 3),
        vision: Tower = Tower(128, 4),
        patch: int = 8,
        learning: Learning = LEARNING,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.folder, self.seed, self.learning = work / "clip", seed, learning
        self.world = world_of(size)
        self.tokenizer = train_tokenizer(captions_of(self.world), MAX_TOKENS)
        self.clip = make_clip(self.tokenizer, text, vision, size, patch)
        learning.begin(self.clip)
        # not the fused attention: on a CPU its backward is half of a step
        self.clip.set_attn_implementation("eager")
        choices = self.world.choices.items()
        self.heads = nn.ModuleDict({name: nn.Linear(vision.width, len(known)) for name, known in choices})

    def embed_pictures(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, d) unit embeddings."""
        return self._project(self.clip.vision_model(pixel_values=pixels).pooler_output)

    def _project(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.clip.visual_projection(pooled).float(), dim=-1)

    def embed_texts(self, texts: list[str]) -> Tensor:
        """Texts to (U, d) unit embeddings."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").to(
            self.device
        )
        pooled = self.clip.text_model(input_ids=tokens.input_ids).pooler_output
        return F.normalize(self.clip.text_projection(pooled).float(), dim=-1)

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Match pictures with their full captions and with another phrasing, the same for all."""
        generator = generator_of_step(self.seed, self.global_step)
        on_device = generator_of_step(self.seed, self.global_step, self.device)
        pixels = to_pixels(batch["picture"])  # (B, 3, H, W)
        strength = NOISE * torch.rand(len(pixels), 1, 1, 1, generator=on_device, device=self.device)
        pixels += strength * torch.randn(pixels.shape, generator=on_device, device=self.device)
        pooled = self.clip.vision_model(pixel_values=pixels).pooler_output  # (B, width)
        image = self._project(pooled)
        variant = int(torch.randint(1, len(self.world.phrasings), (), generator=generator))
        losses = {
            "full": self.loss(image, batch["scene"], 0),
            "other": self.loss(image, batch["scene"], variant),
            "heads": self.loss_of_heads(pooled, batch["scene"]),
        }
        self.log_dict({f"clip/loss_{name}": loss for name, loss in losses.items()})
        return losses["full"] + losses["other"] + losses["heads"]

    def loss_of_heads(self, pooled: Tensor, scenes: list[Scene]) -> Tensor:
        """Mean cross-entropy of naming each attribute from the vision tower's output (B, width) alone.

        What is small in a picture, or small among its differences, is learned late from captions; named it is learned
        at once. The heads are not kept.
        """
        losses = []
        for name, head in self.heads.items():
            known = self.world.choices[name]
            own = [known.index(getattr(scene, name)) for scene in scenes]
            losses.append(F.cross_entropy(head(pooled).float(), torch.tensor(own, device=self.device)))
        return torch.stack(losses).mean()

    def loss(self, image: Tensor, scenes: list[Scene], variant: int) -> Tensor:
        """The contrastive loss against one phrasing; scenes that it says alike have one text."""
        texts = [self.world.caption(scene, variant) for scene in scenes]
        unique = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        own = torch.tensor([unique[text] for text in texts], device=self.device)
        scale = self.clip.logit_scale.clamp(max=4.6).exp()
        return contrastive_loss(image, self.embed_texts(list(unique)), own, scale)

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """How much of what held-out scenes show it reads."""
        seeds = HELD_OUT_SEEDS[:256]
        pixels = to_pixels(held_out_pictures(len(seeds), self.world.size))
        image = self.embed_pictures(pixels.to(self.device))
        scenes = [self.world.random_scene(seed) for seed in seeds]
        shares = Reader(self.world, self.embed_texts).accuracy(image, scenes)
        self.log_dict({f"clip/reads_{name}": share for name, share in shares.items()})

    def configure_optimizers(self) -> Any:
        """As `learning` says."""
        return self.learning.optimiser(self)

    def on_fit_end(self) -> None:
        """Write the model and its tokenizer once it is trained to the end."""
        if self.global_step >= self.learning.steps:
            self.clip.save_pretrained(self.folder)
            self.tokenizer.save_pretrained(self.folder)
