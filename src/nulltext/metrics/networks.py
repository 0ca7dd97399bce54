"""The networks that some metrics score with: CLIP, a DINO ViT, LPIPS. Each computes where it was loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


class ClipScorer:
    """A CLIP model, which places pictures and prompts in one space (Radford et al., arXiv 2103.00020).

    Features of a tensor that several metrics use are computed once.
    """

    def __init__(
        self, model: Any, tokenizer: Any, name: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """Hold a transformers ``CLIPModel``, its tokenizer and its pixel statistics."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.mean, self.std = tuple(mean), tuple(std)
        self._known = WeakTensorKeyDictionary()

    @classmethod
    def from_pretrained(cls, pretrained: str, device: str | torch.device = "cpu") -> ClipScorer:
        """Load a CLIPModel from a folder or a hub id; OSError where weights or tokenizer are not there.

        A folder without a tokenizer uses the one in the folder ``tokenizer`` beside it. One without
        ``preprocessor_config.json`` has OpenAI's pixel mean and deviation.
        """
        from transformers import CLIPModel, CLIPTokenizer

        model: Any = CLIPModel.from_pretrained(pretrained, dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(_tokenizer_place(pretrained))
        return cls(model.to(device), tokenizer, pretrained, *_pixel_statistics(pretrained))

    def image_features(self, pictures: Tensor) -> Tensor:
        """Unit image embeddings.

        Args:
            pictures: (B, 3, H, W) or (3, H, W) in [0, 1]; resized (bicubic) and centre-cropped to the model's size.

        Returns:
            (B, p) or (p,), each of length 1.
        """
        if pictures not in self._known:
            batch = pictures if pictures.dim() == 4 else pictures[None]
            pixels = normalise(fit(batch, self.model.config.vision_config.image_size), self.mean, self.std)
            with torch.no_grad():
                hidden = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
                features = F.normalize(self.model.visual_projection(hidden), dim=-1).cpu()
            self._known[pictures] = features if pictures.dim() == 4 else features[0]
        return self._known[pictures]

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit prompt embeddings (B, p); prompts longer than the model reads are cut."""
        tokens = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).input_ids
        with torch.no_grad():
            hidden = self.model.text_model(input_ids=tokens.to(self.model.device)).pooler_output
            return F.normalize(self.model.text_projection(hidden), dim=-1).cpu()


def _tokenizer_place(place: str) -> str:
    """The model's own folder or id, or the folder ``tokenizer`` beside a folder that has none."""
    folder = Path(place)
    has_none = folder.is_dir() and not any((folder / n).exists() for n in ("tokenizer.json", "vocab.json"))
    return str(folder.parent / "tokenizer") if has_none else place


def _pixel_statistics(place: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and deviation that the model's own preprocessor names, or OpenAI's."""
    from transformers.utils import cached_file

    try:
        found = cached_file(place, "preprocessor_config.json")
    except OSError:
        return CLIP_MEAN, CLIP_STD
    config = json.loads(Path(str(found)).read_text(encoding="utf-8"))
    return config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)


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


class StructureScorer:
    """Self-similarity of a ViT's keys: where things are, not how they look (arXiv 2201.00424, eq. 4)."""

    def __init__(self, model: Any, name: str, size: int = 224) -> None:
        """Hold a transformers ``ViTModel``; ``size`` is the side in pixels to which pictures are resized."""
        self.model = model.eval().requires_grad_(False)
        self.name = name
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

    def self_similarity(self, pictures: Tensor, peak: float = 1.0) -> Tensor:
        """Cosines between the last block's keys, all heads side by side, CLS included.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            peak: What 1 becomes before the ImageNet normalisation: 1 is right, 255 is what PIE-Bench does.

        Returns:
            (B, n, n) with n = 1 + (size / patch)^2.
        """
        pixels = F.interpolate(pictures * peak, (self.size, self.size), mode="bilinear", align_corners=False)
        keys: list[Tensor] = []
        handle = self._last_key.register_forward_hook(lambda _m, _i, out: keys.append(out))
        try:
            with torch.no_grad():
                self.model(
                    pixel_values=normalise(pixels, IMAGENET_MEAN, IMAGENET_STD).to(self.model.device),
                    interpolate_pos_encoding=True,
                )
        finally:
            handle.remove()
        k = keys[0].float().cpu()  # (B, n, heads * dh)
        lengths = k.norm(dim=-1)
        return (k @ k.transpose(1, 2)) / (lengths[:, :, None] * lengths[:, None, :]).clamp(min=1e-8)

    def distance(self, pictures: Tensor, references: Tensor, *, published: bool) -> Tensor:
        """Mean squared difference of two pictures' self-similarities (B,); 0 to 4.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            references: (B, 3, H, W) or (1, 3, H, W) in [0, 1].
            published: With PIE-Bench's input of 0 to 255, for comparison with published figures.
        """
        peak = 255.0 if published else 1.0
        difference = self.self_similarity(pictures, peak) - self.self_similarity(references, peak)
        return difference.square().flatten(1).mean(1)


class PerceptualScorer:
    """LPIPS (Zhang et al., arXiv 1801.03924) through the package ``lpips``; SqueezeNet, as in PIE-Bench."""

    def __init__(self, network: str = "squeeze", device: str | torch.device = "cpu") -> None:
        """Load squeeze, alex or vgg; ImportError without ``lpips`` or the torchvision that it needs."""
        import lpips

        self.name = network
        self.device = device
        self.model = lpips.LPIPS(net=network, verbose=False).to(device).eval().requires_grad_(False)

    def distance(self, pictures: Tensor, references: Tensor) -> Tensor:
        """LPIPS of pictures (B, 3, H, W) in [0, 1]; (B,), 0 for equal pictures, about 1 for unlike ones."""
        with torch.no_grad():
            value = self.model(pictures.to(self.device) * 2 - 1, references.to(self.device) * 2 - 1)
        return value.flatten().float().cpu()
