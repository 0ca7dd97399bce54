"""The frozen diffusion model: pictures to latents and back, prompts to embeddings, noise predictions.

Everything that differs between Stable Diffusion 1.x, 2.x and SDXL is in this file, behind four methods:
``encode_image``, ``decode_latents``, ``embed_prompt`` and ``predict_noise``.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nulltext.ddim import Schedule, v_to_eps
from nulltext.errors import UserError
from nulltext.farmyard import weights as farmyard

FAMILIES = {"StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl"}
DTYPES = {"32-true": torch.float32, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
EDITING = "editing.json"
"""A file that may lie in a model's folder and say what suits its edits: the fields of ``EditDefaults``."""
OPTIONAL_PARTS = {"safety_checker", "feature_extractor", "image_encoder"}
LIBRARIES = ("diffusers", "transformers")  # whose classes a model may be made of
WEIGHTLESS_PARTS = {"scheduler", "tokenizer", "tokenizer_2"}


@dataclass(frozen=True)
class EditDefaults:
    """What suits a model's edits; the defaults are for one that does not say."""

    masked_guidance: float = 3.0  # w under a mask
    masked_windows: float = 0.4  # cross_ and self_replace under a mask, for a kind left to the program
    detail_steps: int = 0  # see nulltext.starting_noise

    @classmethod
    def read(cls, folder: Path) -> EditDefaults:
        """What the model's own ``editing.json`` says, if it has one.

        Raises:
            UserError: A file that is not an object of these numbers.
        """
        path = folder / EDITING
        if not path.is_file():
            return cls()
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            says = cls(**given)
            says = cls(float(says.masked_guidance), float(says.masked_windows), int(says.detail_steps))
        except (OSError, ValueError, TypeError, OverflowError):
            given, says = {}, cls()
        in_range = (
            0 <= says.masked_guidance < math.inf
            and 0 <= says.detail_steps <= 1000
            and 0 <= says.masked_windows <= 1
        )
        if not given or not in_range:
            raise UserError(
                f'{path} must hold {{"masked_guidance": 1.5, "masked_windows": 0.4, "detail_steps": 10}}, '
                "a number from 0, one up to 1 and one up to 1000, or some of them; or remove it"
            )
        return says


@dataclass(frozen=True)
class TextEmbedding:
    """What a UNet attends to, and what rides along with it."""

    sequence: Tensor  # (B, L, d) fp32, the token embeddings
    pooled: Tensor | None = None  # (B, p), SDXL only
    time_ids: Tensor | None = None  # (B, 6), SDXL only: original size, crop, target size

    def __len__(self) -> int:
        return len(self.sequence)

    def __getitem__(self, rows: slice | Tensor) -> TextEmbedding:
        """Some rows of the batch."""
        return self._map(lambda x: x[rows])

    def expand(self, batch: int) -> TextEmbedding:
        """The one row, ``batch`` times."""
        return self._map(lambda x: x.expand(batch, *x.shape[1:]))

    def with_sequence(self, sequence: Tensor) -> TextEmbedding:
        """Other token embeddings (B, L, d) with the same companions."""
        return replace(self, sequence=sequence)

    def equals(self, other: TextEmbedding) -> bool:
        """Whether the UNet would see the same."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("sequence", "pooled", "time_ids")]
        return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs)

    @staticmethod
    def cat(rows: Sequence[TextEmbedding]) -> TextEmbedding:
        """One batch of several."""
        first, *others = rows
        whole = {name: [getattr(row, name) for row in rows] for name in ("sequence", "pooled", "time_ids")}
        return first._replace_parts(lambda name: torch.cat(whole[name])) if others else first

    def _map(self, change: Callable[[Tensor], Tensor]) -> TextEmbedding:
        return self._replace_parts(lambda name: change(getattr(self, name)))

    def _replace_parts(self, make: Callable[[str], Tensor]) -> TextEmbedding:
        """A new embedding with the parts that this one has."""
        present = [name for name in ("sequence", "pooled", "time_ids") if getattr(self, name) is not None]
        return TextEmbedding(**{name: make(name) for name in present})


class Backbone:
    """A frozen Stable Diffusion pipeline, a plain object so that nothing of it enters checkpoints.

    Load it with ``Backbone.from_pretrained``. The UNet's weights live in the half type that ``precision`` names;
    the VAE and the text encoders stay fp32, and so does everything that goes in and comes out.
    """

    def __init__(self, pipe: Any, name: str, fingerprint: str, *, offload: bool = False) -> None:
        self.pipe = pipe
        self.name = name
        self.fingerprint = fingerprint
        self.family = FAMILIES[type(pipe).__name__]
        self.unet, self.vae, self.tokenizer = pipe.unet, pipe.vae, pipe.tokenizer
        self.scheduler_config: dict[str, Any] = dict(pipe.scheduler.config)
        self.vae_scale_factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.latent_channels: int = self.vae.config.latent_channels
        self.default_size: int = self.unet.config.sample_size * self.vae_scale_factor
        self.max_length: int = self.tokenizer.model_max_length
        self.known_words: frozenset[str] | None = None
        self.edit_defaults = EditDefaults()
        self.warned_of: set[str] = set()
        self.offload = offload
        self.forwards = 0
        self.backwards = 0
        self._alpha_bar: Tensor = pipe.scheduler.alphas_cumprod.float()

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str = "farmyard",
        *,
        precision: str = "32-true",
        device: str | torch.device = "cpu",
        variant: str | None = None,
        gradient_checkpointing: bool = False,
        vae_tiling: bool = False,
        attention_slicing: bool = False,
        offload: bool = False,
    ) -> Backbone:
        """Loads a model from the shipped farmyard, a local diffusers folder, or a hub id.

        Args:
            pretrained: ``farmyard``, a folder in the layout of ``StableDiffusionPipeline.save_pretrained``
                (or the XL pipeline's), or a hub id such as ``stable-diffusion-v1-5/stable-diffusion-v1-5``.
            precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``: the type of the UNet's weights and arithmetic.
            device: Where the model lives: ``cpu``, ``cuda``, ``mps``.
            variant: Which weight files to take, such as ``fp16`` (``*.fp16.safetensors``); the plain ones by default.
            gradient_checkpointing: Recompute activations in the backward pass: less memory, a third more time.
            vae_tiling: Encode and decode in tiles: less memory for large pictures, faint seams.
            attention_slicing: Attend head by head: less memory, slower.
            offload: Keep the VAE and the text encoders on the CPU while they are idle.

        Raises:
            UserError: No such model, a part missing, pickle-only weights, an unknown family or precision.
        """
        if precision not in DTYPES:
            raise UserError(
                f"precision {precision!r} is not one of {', '.join(DTYPES)}; use bf16-mixed to go faster"
            )
        folder = check_model(pretrained, variant=variant)
        edit_defaults = EditDefaults.read(folder)
        pipe = _load_pipeline(folder, DTYPES[precision], variant)
        if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
            raise UserError(
                f"{pretrained} is an inpainting or depth model; take its plain text-to-image sibling"
            )
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        if gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
            pipe.unet.train()  # diffusers checkpoints in train mode only; there is no dropout in these UNets
        if vae_tiling:
            pipe.vae.enable_tiling()
        if attention_slicing:
            pipe.enable_attention_slicing()
        backbone = cls(pipe, pretrained, _fingerprint(folder, variant), offload=offload)
        if (folder / farmyard.VOCABULARY).is_file():
            backbone.known_words = farmyard.known_words(folder)
        backbone.edit_defaults = edit_defaults
        return backbone.to(device)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the UNet's weights."""
        return self.unet.dtype

    def to(self, device: str | torch.device) -> Backbone:
        """Moves the model; what is idle stays behind when ``offload`` is set."""
        self.unet.to(device)
        if not self.offload:
            for part in (self.vae, *self._text_encoders()):
                part.to(device)
        return self

    def schedule(self, steps: int) -> Schedule:
        """The DDIM schedule of this model with T = steps."""
        return Schedule.from_config(self.scheduler_config, steps)

    @torch.no_grad()
    def encode_image(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, 4, H/f, W/f), fp32: the posterior's mean, scaled."""
        with self._awake(self.vae):
            mean = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist.mean
        return (mean - (self.vae.config.shift_factor or 0.0)) * self.vae.config.scaling_factor

    @torch.no_grad()
    def decode_latents(self, z: Tensor) -> Tensor:
        """Latents (B, 4, h, w) to pictures (B, 3, h*f, w*f) in [-1, 1], fp32."""
        z = z.to(self.device, torch.float32) / self.vae.config.scaling_factor + (
            self.vae.config.shift_factor or 0.0
        )
        with self._awake(self.vae):
            return self.vae.decode(z).sample.clamp(-1, 1)

    @torch.no_grad()
    def embed_prompt(
        self, prompts: str | Sequence[str], size: tuple[int, int] | None = None
    ) -> TextEmbedding:
        """Prompts to embeddings; the empty prompt is the null text.

        Args:
            prompts: One prompt or several.
            size: (height, width) of the picture in pixels, which SDXL is told; the model's own by default.

        Warns:
            Where a prompt is longer than the text encoder reads, quoting what was cut, and where the model says
            which words it knows (``vocabulary.txt``) and a prompt has others; of each prompt and word once.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        for prompt in prompts:
            self._warn_about(prompt)
        if self.family == "sd":
            return TextEmbedding(self._encode(prompts, self.tokenizer, self.pipe.text_encoder)[0].float())
        return self._embed_prompt_xl(prompts, size or (self.default_size, self.default_size))

    def _embed_prompt_xl(self, prompts: list[str], size: tuple[int, int]) -> TextEmbedding:
        """SDXL reads with two encoders, one layer before the last, and is told the picture's size."""
        sequences = []
        for tokenizer, encoder in zip(
            (self.tokenizer, self.pipe.tokenizer_2), self._text_encoders(), strict=True
        ):
            output = self._encode(prompts, tokenizer, encoder, output_hidden_states=True)
            sequences.append(output.hidden_states[-2].float())
        sequence, pooled = torch.cat(sequences, dim=-1), output[0].float()  # (B, 77, d1 + d2), (B, p)
        if self.pipe.config.force_zeros_for_empty_prompt:
            full = torch.tensor([prompt != "" for prompt in prompts], device=self.device)
            sequence, pooled = sequence * full[:, None, None], pooled * full[:, None]
        time_ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=self.device)
        return TextEmbedding(sequence, pooled, time_ids.expand(len(prompts), 6))

    def _encode(self, prompts: list[str], tokenizer: Any, encoder: nn.Module, **kwargs: bool) -> Any:
        ids = tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with self._awake(encoder):
            return encoder(ids.to(self.device), **kwargs)

    def predict_noise(self, z: Tensor, t: Tensor | int, text: TextEmbedding) -> Tensor:
        """The noise eps (B, 4, h, w), fp32, that the UNet sees in latents z at timestep t under a text.

        Differentiable in z and in the text. A v-prediction is converted here. Each latent of the batch counts as
        one evaluation in ``forwards``, and in ``backwards`` when a gradient is asked for.
        """
        self.forwards += len(z)
        added = None
        if text.pooled is not None:
            added = {"text_embeds": text.pooled, "time_ids": text.time_ids}
        # With autocast's cache, a text embedding would be cast once and every inner step would see the stale copy.
        half = self.dtype != torch.float32
        with torch.autocast(
            self.device.type, self.dtype if half else None, enabled=half, cache_enabled=False
        ):
            output = self.unet(
                z, t, text.sequence, added_cond_kwargs=added, return_dict=False
            )[0].float()  # fmt: skip
        if output.requires_grad:
            output.register_hook(self._count_backward)
        if self.scheduler_config.get("prediction_type") == "v_prediction":
            alpha_bar = self._alpha_bar[torch.as_tensor(t).cpu()].to(z.device).reshape(-1, 1, 1, 1)
            output = v_to_eps(output, z, alpha_bar)
        return output

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    def _text_encoders(self) -> tuple[nn.Module, ...]:
        return (
            (self.pipe.text_encoder,)
            if self.family == "sd"
            else (self.pipe.text_encoder, self.pipe.text_encoder_2)
        )

    @contextmanager
    def _awake(self, part: nn.Module) -> Iterator[None]:
        """Has an offloaded part on the device for as long as it is used."""
        if self.offload:
            part.to(self.device)
        try:
            yield
        finally:
            if self.offload:
                part.to("cpu")

    def _warn_about(self, prompt: str) -> None:
        ids = self.tokenizer(prompt, truncation=False, verbose=False).input_ids
        if len(ids) > self.max_length and prompt not in self.warned_of:
            self.warned_of.add(prompt)
            cut = self.tokenizer.decode(ids[self.max_length - 1 : -1])
            warnings.warn(
                f"the prompt is longer than {self.max_length} tokens; the model does not see: {cut.strip()!r}",
                stacklevel=3,
            )
        if self.known_words is None:
            return
        unknown = [w for w in farmyard.unknown_words(prompt, self.known_words) if w not in self.warned_of]
        if unknown:
            self.warned_of.update(unknown)
            said, known = ", ".join(map(repr, unknown)), ", ".join(sorted(self.known_words))
            warnings.warn(f"the {self.name} model does not know {said}; it knows: {known}", stacklevel=3)


def check_model(pretrained: str, *, variant: str | None = None) -> Path:
    """The folder of a model, checked as far as can be without loading its weights.

    Args:
        pretrained: ``farmyard``, a folder, or a hub id (which is downloaded to the hub's cache).
        variant: Which weight files are wanted, such as ``fp16``.

    Raises:
        UserError: No such model, a part missing, pickle-only weights, an unknown family, or a farmyard file missing
            or damaged.
    """
    if pretrained == "farmyard":
        folder = farmyard.PRETRAINED
        farmyard.check_weights(folder)
    else:
        folder = Path(pretrained).expanduser()
        folder = folder if folder.is_dir() else _download(pretrained, variant)
    index = _read_index(folder)
    family = str(index.get("_class_name", ""))
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(f"{pretrained} is a {family or 'nameless pipeline'}; nulltext knows {known}")
    for part, entry in index.items():
        wanted = isinstance(entry, list) and any(entry) and part not in OPTIONAL_PARTS
        if wanted and (len(entry) != 2 or entry[0] not in LIBRARIES or Path(part).name != part):
            raise UserError(
                f"the model {pretrained} brings its own code for its {str(part)[:40]} ({str(entry)[:80]}); "
                "nulltext runs none, take a model of diffusers' and transformers' classes"
            )
        if wanted and not (folder / part).is_dir():
            raise UserError(f"the model {pretrained} lacks its {part} folder; download it again")
        if wanted and part not in WEIGHTLESS_PARTS:
            _check_weights(folder / part, pretrained)
    return folder


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        if not isinstance(index, dict):
            raise ValueError("it is no mapping")
        return index
    except FileNotFoundError:
        raise UserError(
            f"{folder} has no model_index.json; give a folder written by save_pretrained"
        ) from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(
            f"{folder}/model_index.json cannot be read ({error}); download the model again"
        ) from None


def _check_weights(part: Path, pretrained: str) -> None:
    if list(part.glob("*.safetensors")):
        return
    pickles = [*part.glob("*.bin"), *part.glob("*.ckpt"), *part.glob("*.pt")]
    if pickles:
        raise UserError(
            f"{pickles[0]} is a pickle, which can run code when it is opened; convert the model to safetensors "
            "(save_pretrained(..., safe_serialization=True)) or take one that has them"
        )
    raise UserError(f"the model {pretrained} has no weights in {part.name}; download it again")


def _download(pretrained: str, variant: str | None) -> Path:
    from diffusers import DiffusionPipeline

    if pretrained.startswith((".", "/", "~")) or pretrained.count("/") != 1:
        raise UserError(
            f"there is no model folder {pretrained}; give farmyard, a diffusers folder, or a hub id like owner/name"
        )
    try:
        return Path(DiffusionPipeline.download(pretrained, variant=variant, use_safetensors=True))
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{pretrained} is neither a folder nor a model that the hub gives: {reason}"
        ) from None


def _load_pipeline(folder: Path, dtype: torch.dtype, variant: str | None) -> Any:
    """Loads without the parts that are not used: the safety checker and its feature extractor."""
    from diffusers import DiffusionPipeline

    _quiet_libraries()
    index = _read_index(folder)
    unused: dict[str, Any] = {part: None for part in OPTIONAL_PARTS if part in index}
    if "safety_checker" in index:
        unused["requires_safety_checker"] = False
    try:
        return DiffusionPipeline.from_pretrained(
            str(folder),
            dtype={"unet": dtype, "default": torch.float32},
            low_cpu_mem_usage=find_spec("accelerate") is not None,
            variant=variant,
            use_safetensors=True,
            local_files_only=True,
            **unused,
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the model in {folder} cannot be loaded ({reason}); download it again") from None


def _quiet_libraries() -> None:
    """A loading takes a second or two here: no bars of other libraries between the user and our own."""
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _fingerprint(folder: Path, variant: str | None) -> str:
    """A sha256 that tells UNet weights apart: sizes, headers and 64 blocks of 1 MiB spread over the files."""
    digest = hashlib.sha256()
    pattern = f"*.{variant}*.safetensors" if variant else "*.safetensors"
    files = sorted((folder / "unet").glob(pattern))
    for file in files if variant else [f for f in files if ".fp16" not in f.name] or files:
        size = file.stat().st_size
        digest.update(size.to_bytes(8, "little"))
        with file.open("rb") as stream:
            for k in range(64):
                stream.seek(size * k // 64)
                digest.update(stream.read(1 << 20))
    return digest.hexdigest()
