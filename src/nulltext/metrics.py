"""Every figure that `test` reports, with its formula, range and source.

Pictures are (B, 3, H, W) float tensors in [0, 1], masks (B, 1, H, W) with 1 where the edit is to happen.
Each function answers one value a picture. NaN means "undefined for this picture" (no background, no edited
part); means skip NaNs and count them. A metric that cannot be had, because a package or weights are missing,
is left out by name with the reason and never becomes a zero.

Sources: PIE-Bench is Ju et al., "Direct Inversion" (arXiv 2310.01506), whose evaluation script fixes the
conventions; SSIM is Wang et al. 2004; the structure distance is Tumanyan et al., "Splicing ViT Features"
(arXiv 2201.00424), section 3; the CLIP score is Hessel et al. (arXiv 2104.08718).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from nulltext.errors import UserError
from nulltext.farmyard import weights as farmyard

PSNR_CEILING = 100.0
"""dB that two identical pictures are given, so that means stay finite (their PSNR is infinite)."""

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Scorer = TypeVar("Scorer")


@dataclass(frozen=True)
class Metric:
    """What a column of the results means."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    scale: float
    definition: str


_UP: Literal["higher"] = "higher"
_DOWN: Literal["lower"] = "lower"

METRICS: tuple[Metric, ...] = (
    Metric("ssim", "SSIM", _UP, 1, "SSIM(output, source), whole picture; -1 to 1. Wang et al. 2004."),
    Metric(
        "psnr", "PSNR, dB", _UP, 1, "10 log10(1 / MSE(output, source)), whole picture; 0 to 100, a ceiling."
    ),
    Metric("mse", "MSE x1e4", _DOWN, 1e4, "mean (output - source)^2, whole picture; 0 to 1 before x1e4."),
    Metric(
        "clip_image_target",
        "CLIP img2img target",
        _UP,
        1,
        "cosine of CLIP's image embeddings of output and target picture (the true counterfactual where the "
        "benchmark has one, otherwise a plain generation from the target prompt); -1 to 1, raw.",
    ),
    Metric(
        "clip_image_source", "CLIP img2img source", _UP, 1, "cosine(CLIP(output), CLIP(source)); -1 to 1."
    ),
    Metric("clip_text_target", "CLIP img2text target", _UP, 1, "cosine(CLIP(output), CLIP(target prompt))."),
    Metric("clip_text_source", "CLIP img2text source", _UP, 1, "cosine(CLIP(output), CLIP(source prompt))."),
    Metric(
        "structure_distance",
        "Structure distance x1e3",
        _DOWN,
        1e3,
        "mean squared difference of the DINO ViT-B/8 key self-similarities (last block, 785 tokens) of "
        "output and source; 0 to 4. As published: pictures enter as 0 to 255, without division by 255.",
    ),
    Metric(
        "structure_distance_corrected",
        "Structure distance, corrected x1e3",
        _DOWN,
        1e3,
        "the same with pictures in [0, 1] before the ImageNet normalisation, as DINO was trained.",
    ),
    Metric(
        "background_psnr",
        "Background PSNR, dB",
        _UP,
        1,
        "PSNR of both pictures times (1 - mask), over the whole picture (PIE-Bench: a large mask raises it).",
    ),
    Metric(
        "background_lpips", "Background LPIPS x1e3", _DOWN, 1e3, "LPIPS of both pictures times (1 - mask)."
    ),
    Metric("background_mse", "Background MSE x1e4", _DOWN, 1e4, "MSE of both pictures times (1 - mask)."),
    Metric("background_ssim", "Background SSIM x1e2", _UP, 1e2, "SSIM of both pictures times (1 - mask)."),
    Metric(
        "background_psnr_outside",
        "Background PSNR over its own pixels, dB",
        _UP,
        1,
        "PSNR over the pixels outside the mask alone, so that the size of the mask does not count.",
    ),
    Metric(
        "clip_whole", "CLIP whole", _UP, 1, "100 max(cosine(CLIP(output), CLIP(target prompt)), 0); 0 to 100."
    ),
    Metric("clip_edited", "CLIP edited", _UP, 1, "the same for output times mask, black outside."),
    Metric("counterfactual_psnr", "Counterfactual PSNR, dB", _UP, 1, "PSNR(output, true counterfactual)."),
    Metric("counterfactual_ssim", "Counterfactual SSIM", _UP, 1, "SSIM(output, true counterfactual)."),
    Metric(
        "counterfactual_psnr_inside",
        "Counterfactual PSNR inside the mask, dB",
        _UP,
        1,
        "PSNR(output, true counterfactual) over the pixels inside the mask alone.",
    ),
)
"""Every metric, in the order of the tables; `scale` is what a table multiplies the raw value with."""

_CLIP = tuple(m.name for m in METRICS if m.name.startswith("clip_"))
_STRUCTURE = tuple(m.name for m in METRICS if m.name.startswith("structure_"))


def mse(pictures: Tensor, references: Tensor) -> Tensor:
    """Mean squared error over channels and pixels; 0 to 1, lower is nearer.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,).
    """
    return (pictures - references).square().flatten(1).mean(1)


def psnr(pictures: Tensor, references: Tensor) -> Tensor:
    """Peak signal-to-noise ratio, 10 log10(1 / MSE) in dB; 0 to `PSNR_CEILING`, higher is nearer.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,); identical pictures get the ceiling.
    """
    values = peak_signal_noise_ratio(pictures, references, data_range=1.0, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=PSNR_CEILING)


def ssim(pictures: Tensor, references: Tensor) -> Tensor:
    """Structural similarity, Gaussian window 11 x 11 with sigma 1.5, K = (0.01, 0.03), mean over the picture.

    SSIM = (2 mu_x mu_y + c1)(2 cov_xy + c2) / ((mu_x^2 + mu_y^2 + c1)(var_x + var_y + c2)); -1 to 1.

    Args:
        pictures: (B, 3, H, W) in [0, 1], at least 11 pixels a side.
        references: (B, 3, H, W) in [0, 1].

    Returns:
        (B,).
    """
    values = structural_similarity_index_measure(pictures, references, data_range=1.0, reduction="none")
    assert isinstance(values, Tensor)
    return values.reshape(len(pictures))


def psnr_over(pictures: Tensor, references: Tensor, where: Tensor) -> Tensor:
    """PSNR over the pixels of a mask alone.

    Args:
        pictures: (B, 3, H, W) in [0, 1].
        references: (B, 3, H, W) in [0, 1].
        where: (B, 1, H, W), 1 for the pixels that count.

    Returns:
        (B,); NaN where no pixel counts.
    """
    error = ((pictures - references).square().mean(1, keepdim=True) * where).flatten(1).sum(1)
    error = error / where.flatten(1).sum(1)  # 0 / 0 is NaN, as it should be
    return (-10 * error.log10()).clamp(max=PSNR_CEILING)


def background_metrics(outputs: Tensor, sources: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """How well the part that was not to change was kept, PIE-Bench's way and over the unmasked pixels.

    Args:
        outputs: (B, 3, H, W) in [0, 1].
        sources: (B, 3, H, W) in [0, 1].
        mask: (B, 1, H, W), 1 where the edit is meant to happen.

    Returns:
        Four (B,) tensors by name; NaN where the mask leaves no background.
    """
    keep = 1 - mask
    undefined = keep.flatten(1).sum(1) == 0
    ours, theirs = outputs * keep, sources * keep
    values = {
        "background_psnr": psnr(ours, theirs),
        "background_mse": mse(ours, theirs),
        "background_ssim": ssim(ours, theirs),
        "background_psnr_outside": psnr_over(outputs, sources, keep),
    }
    return {name: value.masked_fill(undefined, torch.nan) for name, value in values.items()}


def _normalise(pictures: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std, channel by channel."""
    shape = (1, 3, 1, 1)
    return (pictures - pictures.new_tensor(mean).view(shape)) / pictures.new_tensor(std).view(shape)


class ClipScorer:
    """A CLIP model that places pictures and prompts in one space (Radford et al., arXiv 2103.00020)."""

    def __init__(
        self, model: Any, tokenizer: Any, name: str, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        """Hold a transformers `CLIPModel`, its tokenizer and its pixel statistics."""
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def from_pretrained(cls, pretrained: str, device: str | torch.device = "cpu") -> ClipScorer:
        """Load a CLIPModel from a folder, a hub id, or "farmyard" (the one that the package ships).

        A folder without a tokenizer borrows the one in the `tokenizer` folder beside it; one without
        `preprocessor_config.json` is taken to want OpenAI's pixel mean and deviation.

        Raises:
            OSError: The weights or the tokenizer are not there.
            UserError: The farmyard's are missing or damaged.
        """
        from transformers import CLIPModel, CLIPTokenizer

        place = pretrained
        if pretrained == "farmyard":
            farmyard.check_weights(farmyard.PRETRAINED)
            place = str(farmyard.PRETRAINED / "clip")
        model: Any = CLIPModel.from_pretrained(place, dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(_tokenizer_place(place))
        return cls(model.to(device), tokenizer, pretrained, *_pixel_statistics(place))

    def image_features(self, pictures: Tensor) -> Tensor:
        """Unit image embeddings.

        Args:
            pictures: (B, 3, H, W) in [0, 1]; resized (bicubic) and centre-cropped to what the model reads.

        Returns:
            (B, p), each of length 1.
        """
        pixels = _normalise(_fit(pictures, self.model.config.vision_config.image_size), self.mean, self.std)
        with torch.no_grad():
            hidden = self.model.vision_model(pixel_values=pixels.to(self.model.device)).pooler_output
            return F.normalize(self.model.visual_projection(hidden), dim=-1).cpu()

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Unit prompt embeddings, (B, p); prompts longer than the model reads are cut."""
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
    """The model's own folder or id, or the `tokenizer` folder beside a folder that has none."""
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
    config = json.loads(Path(str(found)).read_text())
    return config.get("image_mean", CLIP_MEAN), config.get("image_std", CLIP_STD)


def _fit(pictures: Tensor, size: int) -> Tensor:
    """Shorter side to `size` (bicubic, antialiased, 8 bits as PIL gives), then the centre square."""
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
        """Hold a transformers `ViTModel`; `size` is the side in pixels to which pictures are brought."""
        self.model = model.eval().requires_grad_(False)
        self.name = name
        self.size = size
        named = [m for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in ("k_proj", "key")]
        if not named:
            raise OSError(f"{name} has no attention keys that are called k_proj or key")
        self._last_key = named[-1]

    @classmethod
    def from_pretrained(cls, pretrained: str, device: str | torch.device = "cpu") -> StructureScorer:
        """Load a ViTModel from a folder or a hub id; PIE-Bench's is `facebook/dino-vitb8`.

        Raises:
            OSError: The weights are not there.
        """
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
                    pixel_values=_normalise(pixels, IMAGENET_MEAN, IMAGENET_STD).to(self.model.device),
                    interpolate_pos_encoding=True,
                )
        finally:
            handle.remove()
        k = keys[0].float().cpu()  # (B, n, heads * dh)
        lengths = k.norm(dim=-1)
        return (k @ k.transpose(1, 2)) / (lengths[:, :, None] * lengths[:, None, :]).clamp(min=1e-8)

    def distance(self, pictures: Tensor, references: Tensor, *, published: bool) -> Tensor:
        """Mean squared difference of two pictures' self-similarities, (B,); 0 to 4.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            references: (B, 3, H, W) in [0, 1].
            published: With PIE-Bench's 0-to-255 input, for comparison with published figures.
        """
        peak = 255.0 if published else 1.0
        difference = self.self_similarity(pictures, peak) - self.self_similarity(references, peak)
        return difference.square().flatten(1).mean(1)


class PerceptualScorer:
    """LPIPS (Zhang et al., arXiv 1801.03924) through the `lpips` package; SqueezeNet, as in PIE-Bench."""

    def __init__(self, network: str = "squeeze", device: str | torch.device = "cpu") -> None:
        """Load the network and its learned weights.

        Raises:
            ImportError: `lpips` (or the torchvision that it needs) is not installed.
            OSError: The network's weights cannot be had.
        """
        import lpips

        self.name = network
        self.device = device
        self.model = lpips.LPIPS(net=network, verbose=False).to(device).eval().requires_grad_(False)

    def distance(self, pictures: Tensor, references: Tensor) -> Tensor:
        """LPIPS of (B, 3, H, W) pictures in [0, 1]; (B,), 0 for equal pictures, about 1 for unlike ones."""
        with torch.no_grad():
            value = self.model(pictures.to(self.device) * 2 - 1, references.to(self.device) * 2 - 1)
        return value.flatten().float().cpu()


@dataclass(frozen=True)
class Reference:
    """What the outputs of one edit are measured against; all pictures in [0, 1]."""

    source: Tensor  # (3, H, W)
    prompt: str
    target_prompt: str
    mask: Tensor | None = None  # (1, H, W), 1 where the edit is meant to happen
    counterfactual: Tensor | None = None  # (3, H, W), the true answer
    target_picture: Tensor | None = None  # (3, H, W), stands in for the answer in `clip_image_target`


@dataclass
class Judge:
    """The metrics that this machine can have, and by name those that it cannot, with the reason."""

    clip: ClipScorer | None = None
    structure: StructureScorer | None = None
    perceptual: PerceptualScorer | None = None
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        clip: str | None = "farmyard",
        dino: str | None = None,
        lpips: str | None = None,
        device: str | torch.device = "cpu",
    ) -> Judge:
        """Load each model that is named and can be had; note why the others are absent.

        Args:
            clip: CLIP model, a folder or hub id; `farmyard` is the one that the package ships.
            dino: ViT for the structure distance, a folder or hub id (`facebook/dino-vitb8`).
            lpips: LPIPS network (`squeeze`, `alex`, `vgg`); needs the package `lpips`.
            device: Where they compute.

        Raises:
            UserError: The farmyard's CLIP is missing or damaged.
        """
        judge = cls()
        judge.clip = judge._load(
            "CLIP", "metrics.clip", clip, lambda n: ClipScorer.from_pretrained(n, device), _CLIP
        )
        judge.structure = judge._load(
            "DINO", "metrics.dino", dino, lambda n: StructureScorer.from_pretrained(n, device), _STRUCTURE
        )
        judge.perceptual = judge._load(
            "LPIPS", "metrics.lpips", lpips, lambda n: PerceptualScorer(n, device), ("background_lpips",)
        )
        return judge

    def _load(
        self, title: str, option: str, name: str | None, load: Callable[[str], Scorer], metrics: Sequence[str]
    ) -> Scorer | None:
        """One scorer, or None and a reason under each metric that needs it."""
        if name is None:
            reason = f"no {title} model was named ({option})"
        else:
            try:
                return load(name)
            except (ImportError, OSError, RuntimeError, ValueError) as error:
                first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
                reason = f"{title} model '{name}' could not be loaded: {first_line}"
        self.absent.update(dict.fromkeys(metrics, reason))
        return None

    def score(self, outputs: Tensor, reference: Reference) -> list[dict[str, float]]:
        """All metrics of several outputs of one edit.

        Args:
            outputs: (B, 3, H, W) in [0, 1].
            reference: The source, prompts, mask and true answer of the edit.

        Returns:
            B dictionaries from metric to value; those that need a mask or a true answer only where
            there is one.

        Raises:
            UserError: An output's size is not the source's.
        """
        if outputs.shape[1:] != reference.source.shape:
            raise UserError(
                f"outputs are {tuple(outputs.shape[1:])}, the source is {tuple(reference.source.shape)}"
            )
        source = reference.source.expand_as(outputs)
        values = {"psnr": psnr(outputs, source), "ssim": ssim(outputs, source), "mse": mse(outputs, source)}
        values |= self._masked(outputs, source, reference) | self._counterfactual(outputs, reference)
        values |= self._clip(outputs, reference)
        if self.structure is not None:
            values["structure_distance"] = self.structure.distance(outputs, source, published=True)
            values["structure_distance_corrected"] = self.structure.distance(outputs, source, published=False)
        order = [m.name for m in METRICS if m.name in values]
        return [{name: float(values[name][i]) for name in order} for i in range(len(outputs))]

    def _masked(self, outputs: Tensor, source: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Metrics of the background."""
        if reference.mask is None:
            return {}
        mask = reference.mask.expand(len(outputs), -1, -1, -1)
        values = background_metrics(outputs, source, mask)
        if self.perceptual is not None:
            undefined = values["background_mse"].isnan()
            lpips = self.perceptual.distance(outputs * (1 - mask), source * (1 - mask))
            values["background_lpips"] = lpips.masked_fill(undefined, torch.nan)
        return values

    def _counterfactual(self, outputs: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Distance to the true answer, where it is known."""
        if reference.counterfactual is None:
            return {}
        truth = reference.counterfactual.expand_as(outputs)
        values = {"counterfactual_psnr": psnr(outputs, truth), "counterfactual_ssim": ssim(outputs, truth)}
        if reference.mask is not None:
            inside = reference.mask.expand(len(outputs), -1, -1, -1)
            values["counterfactual_psnr_inside"] = psnr_over(outputs, truth, inside)
        return values

    def _clip(self, outputs: Tensor, reference: Reference) -> dict[str, Tensor]:
        """Raw cosines as in the slides' table, and PIE-Bench's two scores times 100."""
        if self.clip is None:
            return {}
        images = self.clip.image_features(outputs)  # (B, p)
        source_text, target_text = self.clip.text_features([reference.prompt, reference.target_prompt])
        values = {
            "clip_image_source": images @ self.clip.image_features(reference.source[None])[0],
            "clip_text_target": images @ target_text,
            "clip_text_source": images @ source_text,
            "clip_whole": 100 * (images @ target_text).clamp(min=0),
        }
        target_picture = (
            reference.counterfactual if reference.counterfactual is not None else reference.target_picture
        )
        if target_picture is not None:
            values["clip_image_target"] = images @ self.clip.image_features(target_picture[None])[0]
        if reference.mask is not None:
            edited = self.clip.image_features(outputs * reference.mask) @ target_text
            nothing = bool(reference.mask.sum() == 0)
            values["clip_edited"] = (100 * edited.clamp(min=0)).masked_fill(torch.tensor(nothing), torch.nan)
        return values
