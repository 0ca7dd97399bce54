"""The frozen diffusion model: pictures to latents and back, prompts to conditionings, predictions.

A model family is one file in ``families``: it says which parts it needs, how it reads prompts, and how its network is
called. Everything else is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from nulltext.diffusion import Level, Prediction, Schedule
from nulltext.models.attention import AttentionHook, hooked
from nulltext.models.conditioning import Conditioning, Learned
from nulltext.models.device import DTYPES
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import check_parts
from nulltext.models.folder.weights import all_fingerprints, fingerprint, kinds_of
from nulltext.models.vocabulary import PromptNotes, known_words


class DiffusionModel(ABC):
    """A frozen text-to-image model, a plain object so that nothing of it enters checkpoints.

    Load one with ``DiffusionModel.from_pretrained``. The network's weights live in the half type that the precision
    names; the VAE and the text encoders stay fp32, and so does everything that goes in and comes out.
    """

    # Said by the family's class
    pipeline: ClassVar[str]  # the diffusers class that the family adapts, such as StableDiffusionPipeline
    parts: ClassVar[Mapping[str, Sequence[str]]]  # its parts, and the classes that each may be of
    optional: ClassVar[frozenset[str]] = frozenset()  # the parts that a folder may lack
    denoiser_part: ClassVar[str] = "unet"
    text_parts: ClassVar[Sequence[str]] = ("text_encoder",)
    tokens_of: ClassVar[str] = "tokenizer"  # the part whose tokens the learned sequence starts with

    # Set by the family's __init__
    kind: str  # what the network predicts: epsilon, v_prediction or flow
    default_size: int  # side of the pictures that it was trained on, in pixels
    embedding_shape: tuple[int, int]  # (L, d) of one learnable null embedding
    network_width: int  # channels of the network's first feature map, for estimates of memory

    def __init__(self, pipe: Any, folder: ModelFolder, variant: str | None = None) -> None:
        self.pipe, self.folder = pipe, folder
        self.name = folder.name  # as the user gave it: farmyard, a folder, or a hub id
        self.variant: str | None = variant  # which weight files were read; None: the plain ones
        self.revision: str | None = None  # the version of a hub model, where one was named
        self.family: str | None = None  # the import path of a family from outside the package
        self.denoiser: Any = getattr(pipe, self.denoiser_part)
        self.vae, self.tokenizer = pipe.vae, getattr(pipe, self.tokens_of)
        self.fingerprint = fingerprint(kinds_of(folder.path / self.denoiser_part).get(variant, []))
        self.scheduler_config: dict[str, Any] = dict(pipe.scheduler.config)
        self.vae_scale_factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.size_multiple = self.vae_scale_factor  # the sides of its pictures are multiples of it, in pixels
        self.latent_channels: int = self.vae.config.latent_channels
        self.max_length: int = self.tokenizer.model_max_length  # L, the tokens that it reads of a prompt
        self.known_words = known_words(folder.path)  # its whole vocabulary, where it says so
        self.offload = False
        self.forwards = 0  # evaluations of the network so far, one per latent
        self.backwards = 0  # gradients through it so far, one per latent
        self.notes = PromptNotes(self.name, self.tokenizer, self.known_words)

    @staticmethod
    def from_pretrained(
        pretrained: str = "farmyard",
        *,
        precision: str = "32-true",
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> DiffusionModel:
        """Loads a model; see ``load_model``.

        Args:
            pretrained: ``farmyard``, a folder in the layout of ``save_pretrained``, or a hub id such as
                ``stable-diffusion-v1-5/stable-diffusion-v1-5``.
            precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
            device: ``cpu``, ``cuda``, ``mps``, or ``auto``.
            **options: The fields of ``LoadingOptions``, such as ``variant="fp16"`` or ``offload=True``.
        """
        from nulltext.models.loading import LoadingOptions, load_model

        return load_model(pretrained, LoadingOptions(pretrained, **options), device, precision=precision)

    @classmethod
    def check(cls, folder: ModelFolder) -> None:
        """Checks a folder before its weights load, with one ``UserError``; a family adds what its network needs."""
        check_parts(folder, cls.parts_of(folder))

    @classmethod
    def parts_of(cls, folder: ModelFolder) -> dict[str, Sequence[str]]:
        """The parts that are loaded from a folder: all, but for optional ones that it lacks."""
        return {
            part: classes
            for part, classes in cls.parts.items()
            if part not in cls.optional or folder.part(part) is not None
        }

    @abstractmethod
    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """The schedule of T steps; that of some flows depends on the picture's (height, width) in pixels."""

    @abstractmethod
    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        """Prompts to a conditioning, one row each."""

    @abstractmethod
    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The network's own output (B, C, h, w) at latents z (B, C, h, w) and timestep t under a text."""

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        # diffusers' own property looks through all modules, 2 ms a time
        return next(self.denoiser.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return next(p.dtype for p in self.denoiser.parameters() if p.is_floating_point())

    @property
    def precision(self) -> str:
        """The name of that type: ``32-true``, ``bf16-mixed`` or ``16-mixed``."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def to(self, device: str | torch.device) -> Self:
        """Moves the model; what is idle stays behind when ``offload`` is set."""
        self.denoiser.to(device)
        if not self.offload:
            for part in (self.vae, *self._text_encoders()):
                part.to(device)
        return self

    def matches(self, fingerprint: str) -> bool:
        """Whether a fingerprint is of this model's weights, in any of the kinds that its folder holds."""
        part = self.folder.path / self.denoiser_part
        return fingerprint == self.fingerprint or fingerprint in all_fingerprints(part)

    @property
    def picture_note(self) -> str | None:
        """What to say once of a picture of the user's own, where the model may not know what it shows."""
        if self.known_words is None:
            return None
        return (
            f"{self.name} knows drawn scenes of {len(self.known_words)} words and no photographs; for a photograph "
            "give --model.pretrained a model of photographs"
        )

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """(C, h, w) of the latents of a picture of (height, width) pixels."""
        f = self.vae_scale_factor
        return self.latent_channels, size[0] // f, size[1] // f

    @torch.no_grad()
    def embed(self, prompts: str | Sequence[str], size: tuple[int, int] | None = None) -> Conditioning:
        """Prompts to conditionings, one row each; the empty prompt is the null text.

        Some families are told the picture's (height, width) in pixels; the model's own by default. Warns of what the
        model does not read of a prompt, see ``PromptNotes``.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        self.notes.warn(prompts)
        return self._embed(prompts, size or (self.default_size, self.default_size))

    def predict(self, z: Tensor, schedule: Schedule, i: int, text: Conditioning) -> Prediction:
        """What the network sees in latents z (B, C, h, w) at the start of step i under a text.

        Differentiable in z and in the text.
        """
        return self.predict_at(z, schedule.t[i], schedule.here(i), text)

    def predict_at(self, z: Tensor, t: Tensor | int, level: Level, text: Conditioning) -> Prediction:
        """The same at any timestep and noise level.

        Each latent of the batch counts as one evaluation in ``forwards``, and in ``backwards`` when a gradient is
        taken through it.
        """
        self.forwards += len(z)
        # With autocast's cache, a text embedding would be cast once and every inner step would see the stale copy.
        half = self.dtype != torch.float32
        with torch.autocast(
            self.device.type, self.dtype if half else None, enabled=half, cache_enabled=False
        ):
            output = self.network(z, t, text).float()
        if output.requires_grad:
            output.register_hook(self._count_backward)
        return Prediction(output, z, level, self.kind)

    def _count_backward(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)

    @property
    def learned(self) -> Learned:
        """What may be learned of a null text: its token embeddings, unless a family adds to them."""
        return Learned((self.embedding_shape[0],))

    def learnable(self, text: Conditioning, tokens: int | None = None) -> Tensor:
        """What is learned of a null text (B, rows, d): all its tokens, or the first few of each text encoder."""
        return self.learned.pack(text, tokens)

    def with_learned(self, text: Conditioning, embedding: Tensor) -> Conditioning:
        """A null text with what was learned (B, rows, d) in its place."""
        return self.learned.unpack(text, embedding)

    def attend(self, hook: AttentionHook | None) -> AbstractContextManager[Sequence[str]]:
        """Offers the network's attention to a hook; always restored. Gives the names of the attention layers."""
        return hooked(self.denoiser, hook, sum(self.learned.encoders))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [-1, 1] to latents (B, C, h, w), fp32: the posterior's mean, normalised."""
        with self._awake(self.vae):
            mean = self.vae.encode(pixels.to(self.device, torch.float32)).latent_dist.mean
        shift, scale = self._latent_statistics()
        return (mean - shift) * scale

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in [-1, 1], fp32."""
        shift, scale = self._latent_statistics()
        z = z.to(self.device, torch.float32) / scale + shift
        with self._awake(self.vae):
            return self.vae.decode(z).sample.clamp(-1, 1)

    def _latent_statistics(self) -> tuple[Any, Any]:
        """The shift and the scale that normalise the VAE's latents: numbers, or (1, C, 1, 1)."""
        config = self.vae.config
        scale = config.scaling_factor
        mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
        if mean is None or std is None:
            return getattr(config, "shift_factor", None) or 0.0, scale
        mean, std = (torch.tensor(x, device=self.device).reshape(1, -1, 1, 1) for x in (mean, std))
        return mean, scale / std

    def _text_encoders(self) -> list[nn.Module]:
        encoders = [getattr(self.pipe, part) for part in self.text_parts]
        return [encoder for encoder in encoders if encoder is not None]

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

    def _read(self, prompts: list[str], tokenizer: Any, encoder: nn.Module, **options: bool) -> Any:
        """What a text encoder makes of prompts, padded to its tokenizer's length."""
        ids = tokenizer(
            prompts,
            padding="max_length",
            max_length=tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        ).input_ids
        with self._awake(encoder):
            return encoder(ids.to(self.device), **options)
