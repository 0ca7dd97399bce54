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
from nulltext.models.conditioning import Conditioning
from nulltext.models.device import DTYPES
from nulltext.models.edit_defaults import EditDefaults
from nulltext.models.folder.index import ModelFolder
from nulltext.models.folder.parts import check_parts
from nulltext.models.folder.weights import all_fingerprints, fingerprint, kinds_of
from nulltext.models.vocabulary import PromptNotes, known_words


class DiffusionModel(ABC):
    """A frozen text-to-image model, a plain object so that nothing of it enters checkpoints.

    Load one with ``DiffusionModel.from_pretrained``. The network's weights live in the half type that the precision
    names; the VAE and the text encoders stay fp32, and so does everything that goes in and comes out.

    Attributes:
        name: The model as the user gave it: ``farmyard``, a folder, or a hub id.
        revision: The hub's version that was asked for.
        variant: The kind of weight files that the network was read from, such as ``fp16``; None for the plain one.
        family: The import path of a family from outside the package.
        fingerprint: A sha256 of the network's weights.
        scheduler_config: The scheduler's config.
        vae_scale_factor: Pixels per latent position, on each side.
        latent_channels: C.
        default_size: The side of the pictures that it was trained on, in pixels.
        tokenizer: Its tokenizer, which knows offsets.
        max_length: L, the tokens that it reads of a prompt.
        edit_defaults: What suits its edits.
        known_words: Its whole vocabulary, for a model that says so.
        forwards: Evaluations of the network so far, one per latent.
        backwards: Gradients through it so far, one per latent.
    """

    pipeline: ClassVar[str]
    """The diffusers class that the family adapts, such as ``StableDiffusionPipeline``."""
    parts: ClassVar[Mapping[str, Sequence[str]]]
    """The parts that it needs and the classes that each may be of."""
    denoiser_part: ClassVar[str] = "unet"
    text_parts: ClassVar[Sequence[str]] = ("text_encoder",)

    def __init__(self, pipe: Any, folder: ModelFolder, variant: str | None = None) -> None:
        self.pipe, self.folder, self.name = pipe, folder, folder.name
        self.variant: str | None = variant
        self.revision: str | None = None
        self.family: str | None = None
        self.denoiser: Any = getattr(pipe, self.denoiser_part)
        self.vae, self.tokenizer = pipe.vae, pipe.tokenizer
        self.fingerprint = fingerprint(kinds_of(folder.path / self.denoiser_part).get(variant, []))
        self.scheduler_config: dict[str, Any] = dict(pipe.scheduler.config)
        self.vae_scale_factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.latent_channels: int = self.vae.config.latent_channels
        self.max_length: int = self.tokenizer.model_max_length
        self.edit_defaults = EditDefaults.read(folder.path)
        self.known_words = known_words(folder.path)
        self.offload = False
        self.forwards = 0
        self.backwards = 0
        self._notes = PromptNotes(self.name, self.tokenizer, self.known_words)

    @classmethod
    def from_pretrained(
        cls,
        pretrained: str = "farmyard",
        *,
        precision: str = "32-true",
        device: str | torch.device = "cpu",
        **options: Any,
    ) -> DiffusionModel:
        """Loads a model from the shipped farmyard, a local diffusers folder, or a hub id.

        Args:
            pretrained: ``farmyard``, a folder in the layout of ``save_pretrained``, or a hub id such as
                ``stable-diffusion-v1-5/stable-diffusion-v1-5``.
            precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``: the type of the network's weights and arithmetic.
            device: Where the model lives: ``cpu``, ``cuda``, ``mps``, or ``auto``.
            **options: The fields of ``LoadingOptions``, such as ``variant="fp16"`` or ``offload=True``.

        Raises:
            UserError: No such model, a part missing, pickle-only weights, an unknown family or precision.
        """
        from nulltext.models.loading import LoadingOptions, load_model

        return load_model(pretrained, LoadingOptions(pretrained, **options), device, precision=precision)

    @classmethod
    def check(cls, folder: ModelFolder) -> None:
        """Checks a folder before its weights load; a family adds what its method needs.

        Raises:
            UserError: A part is missing or of a kind that the family does not know.
        """
        check_parts(folder, cls.parts)

    # What a family answers

    @property
    @abstractmethod
    def kind(self) -> str:
        """What the network predicts: ``epsilon``, ``v_prediction`` or ``flow``."""

    @property
    @abstractmethod
    def default_size(self) -> int:
        """The side of the pictures that it was trained on, in pixels."""

    @property
    @abstractmethod
    def embedding_shape(self) -> tuple[int, int]:
        """(L, d) of one learnable null embedding."""

    @property
    @abstractmethod
    def network_width(self) -> int:
        """Channels of the network's first feature map, for estimates of memory."""

    @abstractmethod
    def schedule(self, steps: int, size: tuple[int, int] | None = None) -> Schedule:
        """The schedule with T = steps.

        Args:
            steps: T.
            size: (height, width) of the picture in pixels, on which the levels of some flows depend.
        """

    @abstractmethod
    def _embed(self, prompts: list[str], size: tuple[int, int]) -> Conditioning:
        """Prompts to a conditioning, one row each."""

    @abstractmethod
    def network(self, z: Tensor, t: Tensor | int, text: Conditioning) -> Tensor:
        """The network's own output (B, C, h, w) at latents z (B, C, h, w) and timestep t under a text."""

    # What all families share

    @property
    def size_multiple(self) -> int:
        """The sides of its pictures are multiples of it, in pixels."""
        return self.vae_scale_factor

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.denoiser.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights."""
        return self.denoiser.dtype

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
        return fingerprint == self.fingerprint or fingerprint in all_fingerprints(
            self.folder.path / self.denoiser_part
        )

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

        Args:
            prompts: One prompt or several.
            size: (height, width) of the picture in pixels, which some families are told; the model's own by default.

        Warns:
            Where a prompt is longer than the text encoder reads, and where it has words that the model does not know.
        """
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        self._notes.warn(prompts)
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

    def learnable(self, text: Conditioning) -> Tensor:
        """What may be learned of a null text (B, L, d): the sequence, unless a family packs more into it."""
        return text.sequence

    def with_learned(self, text: Conditioning, embedding: Tensor) -> Conditioning:
        """A null text with what was learned (B, L, d) in its place."""
        return text.with_sequence(embedding)

    def attend(self, hook: AttentionHook | None) -> AbstractContextManager[Sequence[str]]:
        """Offers the network's attention to a hook; always restored. Gives the names of the attention layers."""
        return hooked(self.denoiser, hook)

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
        return [getattr(self.pipe, part) for part in self.text_parts]

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
