"""The networks that some metrics score with: CLIP, a DINO ViT, LPIPS. Each computes where it was loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std of each channel."""
    shape = (1, 3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)


def fit(pictures: Tensor, size: int) -> Tensor:
    """Shorter side to ``size`` (bicubic, antialiased, 8 bits as PIL gives), then the centre square."""
    height, width = pictures.shape[-2:]
    if (height, width) == (size, size):
        return pictures
    scale = size / min(height, width)
    shape = (max(size, int(height * scale)), max(size, int(width * scale)))
    resized = F.interpolate(pictures, shape, mode="bicubic", antialias=True)
    resized = (resized.clamp(0, 1) * 255).round() / 255
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return resized[..., top : top + size, left : left + size]


class ClipScorer:
    """A CLIP model, which places pictures and prompts in one space (Radford et al., arXiv 2103.00020).

    Features of a tensor that several metrics use are computed once.
    """

    def __init__(self, model: Any, tokenizer: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        """Hold a transformers ``CLIPModel``, its tokenizer and its pixel statistics."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.mean, self.std = tuple(mean), tuple(std)
        self._known = WeakTensorKeyDictionary()

    @classmethod
    def from_pretrained(cls, pretrained: str, device: str | torch.device = "cpu") -> ClipScorer:
        """Load a CLIPModel from a folder or a hub id; OSError where weights or tokenizer are not there.

        A folder without a tokenizer uses the one in the folder ``tokenizer`` beside it. One without
        ``preprocessor_config.json`` has OpenAI's pixel mean and deviation.
        """
        from transformers import CLIPModel, CLIPTokenizer, ImageProcessingMixin

        folder = Path(pretrained)
        bare = folder.is_dir() and not any((folder / n).exists() for n in ("tokenizer.json", "vocab.json"))
        model: Any = CLIPModel.from_pretrained(pretrained, dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(str(folder.parent / "tokenizer") if bare else pretrained)
        try:
            config, _ = ImageProcessingMixin.get_image_processor_dict(pretrained)
        except OSError:
            config = {}
        statistics = config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)
        return cls(model.to(device), tokenizer, *statistics)

    @torch.no_grad()
    def image_features(self, pictures: Tensor) -> Tensor:
        """Unit embeddings (B, p) or (p,) of pictures (B, 3, H, W) or (3, H, W) in [0, 1], cut to its square."""
        if pictures not in self._known:
            batch = pictures if pictures.dim() == 4 else pictures[None]
            pixels = normalise(fit(batch, self.model.config.vision_config.image_size), self.mean, self.std)
            hidden = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
            features = F.normalize(self.model.visual_projection(hidden), dim=-1).cpu()
            self._known[pictures] = features if pictures.dim() == 4 else features[0]
        return self._known[pictures]

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit prompt embeddings (B, p); prompts longer than the model reads are cut."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids
        hidden = self.model.text_model(input_ids=tokens.to(self.model.device)).pooler_output
        return F.normalize(self.model.text_projection(hidden), dim=-1).cpu()


class StructureScorer:
    """Self-similarity of a ViT's keys: where things are, not how they look (arXiv 2201.00424, eq. 4)."""

    def __init__(self, model: Any, name: str, size: int = 224) -> None:
        """Hold a transformers ``ViTModel``; ``size`` is the side in pixels to which pictures are resized."""
        self.model = model.eval().requires_grad_(False)
        self.size = size
        named = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in ("k_proj", "key")]
        if not named:
            raise OSError(f"{name} has no attention keys that are called k_proj or key")
        self._last_key = named[-1]

    @classmethod
    def from_pretrained(cls, pretrained: str, device: str | torch.device = "cpu") -> StructureScorer:
        """Load a ViTModel from a folder or a hub id; PIE-Bench's is ``facebook/dino-vitb8``."""
        from transformers import ViTModel

        model: Any = ViTModel.from_pretrained(pretrained, add_pooling_layer=False, dtype=torch.float32)
        return cls(model.to(device), pretrained)

    @torch.no_grad()
    def self_similarity(self, pictures: Tensor, peak: float = 1.0) -> Tensor:
        """Cosines (B, n, n) between the last block's keys, all heads side by side; n = 1 + (size / patch)^2.

        ``peak`` is what 1 in a picture becomes before the ImageNet normalisation.
        """
        pixels = F.interpolate(pictures * peak, (self.size, self.size), mode="bilinear", align_corners=False)
        pixels = normalise(pixels, IMAGENET_MEAN, IMAGENET_STD).to(self.model.device)
        keys: list[Tensor] = []
        handle = self._last_key.register_forward_hook(lambda _m, _i, out: keys.append(out))
        try:
            self.model(pixel_values=pixels, interpolate_pos_encoding=True)
        finally:
            handle.remove()
        k = F.normalize(keys[0].float().cpu(), dim=-1)  # (B, n, heads * dh)
        return k @ k.transpose(1, 2)

    def distance(self, pictures: Tensor, references: Tensor, *, published: bool) -> Tensor:
        """Mean squared difference (B,) of self-similarities, 0 to 4, of pictures (B or 1, 3, H, W) in [0, 1].

        ``published``: with PIE-Bench's input of 0 to 255, for comparison with published figures.
        """
        peak = 255.0 if published else 1.0
        difference = self.self_similarity(pictures, peak) - self.self_similarity(references, peak)
        return difference.square().flatten(1).mean(1)


def load_lpips(network: str = "squeeze", device: str | torch.device = "cpu") -> Callable[..., Tensor]:
    """LPIPS (Zhang et al., arXiv 1801.03924) by squeeze, as in PIE-Bench, alex or vgg; ImportError without torchvision.

    What it gives measures two batches (B, 3, H, W) in [0, 1]: (B,), 0 for equal pictures, about 1 for unlike ones.
    """
    from torchmetrics.image import lpip

    model: Any = lpip.LearnedPerceptualImagePatchSimilarity(net_type=network).net.to(device).eval()  # type: ignore[arg-type]

    @torch.no_grad()
    def distance(pictures: Tensor, references: Tensor) -> Tensor:
        return model(pictures.to(device) * 2 - 1, references.to(device) * 2 - 1).flatten().float().cpu()

    return distance
