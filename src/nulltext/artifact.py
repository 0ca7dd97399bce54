"""An inversion and its file ``inversion.safetensors``, read without trust: its header is checked before any tensor."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion_settings import MAX_REFINEMENTS

FORMAT_VERSION = 1
DIMENSIONS = {"null_embeddings": 3, "noise": 3, "detail_noise": 3, "pooled": 1}  # of the tensors there may be
MAX_BYTES = 2**31  # of one tensor in fp32; SDXL at a thousand steps takes a third of it
MAX_SIDE = 2**16  # pixels
MAX_PROMPT = 10_000  # characters
MAX_STEPS = 1000  # T, and of a plain inversion
TEXTS = ("prompt", "model", "fingerprint", "crop", "source_sha256")
NUMBERS = ("guidance_scale", "psnr", "fixed_point_iterations", "pivot_tolerance")


@dataclass(frozen=True)
class Inversion:
    """What an inversion leaves: enough to reconstruct and edit the picture with the same model."""

    null_embeddings: Tensor  # (T, L, d) fp32
    noise: Tensor  # (4, h, w) fp32, z_T
    prompt: str
    guidance_scale: float
    model: str  # the name it was loaded by
    fingerprint: str  # of the UNet's weights
    scheduler: dict[str, Any]  # the scheduler's config
    timesteps: list[int]  # T, noisiest first
    size: tuple[int, int]  # (height, width) in pixels
    crop: str = "center"
    source_sha256: str = ""
    fixed_point_iterations: int = 0
    pivot_tolerance: float = 0.0
    psnr: float = float("nan")  # dB, the reconstruction against the picture
    settings: dict[str, Any] = field(default_factory=dict)
    pooled: Tensor | None = None  # (p,), SDXL: the null text's pooled embedding
    detail_steps: int = 0  # of the plain inversion that ended in the detail noise
    detail_noise: Tensor | None = None  # (4, h, w), see nulltext.starting_noise

    @property
    def steps(self) -> int:
        """The number of timesteps T."""
        return len(self.null_embeddings)

    def save(self, path: Path) -> None:
        """Writes ``inversion.safetensors``: the tensors, and everything else as JSON in the metadata."""
        from safetensors.torch import save_file

        tensors, facts = {}, {"format_version": FORMAT_VERSION}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                tensors[name] = value.detach().float().cpu().contiguous()
            elif value is not None:
                facts[name] = value
        metadata = {"nulltext": json.dumps(facts, sort_keys=True, default=str)}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> Inversion:
        """Reads ``inversion.safetensors``.

        Raises:
            UserError: No such file, a damaged one, one that nulltext did not write, or a newer format.
        """
        facts, tensors = read_artifact(Path(path))
        values: dict[str, Any] = {**facts, **tensors, "size": tuple(facts["size"])}
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{path} is not an inversion ({error}); make it again with fit") from None

    def check(self, backbone: Backbone) -> None:
        """Refuses a model other than the one this inversion was made with.

        Raises:
            UserError: Another model or schedule, naming both.
        """
        if self.fingerprint != backbone.fingerprint:
            raise UserError(
                f"this inversion was made with {self.model} (weights {self.fingerprint[:8]}), not with "
                f"{backbone.name} (weights {backbone.fingerprint[:8]}); invert the picture again or load {self.model}"
            )
        timesteps = backbone.schedule(self.steps).timesteps.tolist()
        if timesteps != self.timesteps:
            raise UserError(
                f"this inversion's timesteps start {self.timesteps[:3]}, the model's scheduler gives {timesteps[:3]}; "
                "restore the scheduler's config or invert the picture again"
            )
        f, d = backbone.vae_scale_factor, backbone.unet.config.cross_attention_dim
        embeddings = (self.steps, backbone.max_length, d)
        noise = (backbone.latent_channels, self.size[0] // f, self.size[1] // f)
        kept = [x for x in (self.noise, self.detail_noise) if x is not None]
        if tuple(self.null_embeddings.shape) != embeddings or any(tuple(x.shape) != noise for x in kept):
            raise UserError(
                f"this inversion holds {tuple(self.null_embeddings.shape)} embeddings and "
                f"{' and '.join(str(tuple(x.shape)) for x in kept)} noise where {backbone.name} takes {embeddings} "
                f"and {noise}; invert the picture again"
            )

    def null_texts(self, backbone: Backbone) -> list[TextEmbedding]:
        """The learned null text of each step, one row each."""
        null = backbone.embed_prompt("", self.size)
        if self.pooled is not None:
            null = dataclasses.replace(null, pooled=self.pooled[None].to(backbone.device))
        learned = self.null_embeddings.to(backbone.device)
        return [null.with_sequence(sequence[None]) for sequence in learned]


def read_facts(path: Path) -> dict[str, Any]:
    """What an inversion says of itself, from the header alone.

    Raises:
        UserError: No such file, a damaged one, one that nulltext did not write, a newer format, or one that would
            take more memory than an inversion can need.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise UserError(f"there is no inversion {path}; make one: python main.py fit --data.image PICTURE")
    with _blaming(path), safe_open(path, framework="pt") as file:
        facts = json.loads((file.metadata() or {})["nulltext"])
        version = facts.pop("format_version")
        if version > FORMAT_VERSION:
            raise UserError(
                f"{path} has format {version}, this nulltext reads {FORMAT_VERSION}; upgrade nulltext"
            )
        _check_facts(facts)
        for name in file.keys():
            _check_shape(name, file.get_slice(name).get_shape())
    return facts


def read_artifact(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What an inversion says of itself, and its tensors in fp32.

    Raises:
        UserError: As ``read_facts``; or a tensor holds something that is not a finite number.
    """
    from safetensors import safe_open

    facts = read_facts(path)
    with _blaming(path):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("its tensors are not finite")
        if len(tensors["null_embeddings"]) != len(facts["timesteps"]) or "noise" not in tensors:
            raise ValueError("its tensors have other shapes")
        if ("detail_noise" in tensors) != bool(facts.get("detail_steps")):
            raise ValueError("its detail has no steps or its steps no detail")
    return facts, tensors


def _check_facts(facts: Any) -> None:
    """Refuses values of another kind than ``Inversion.save`` writes."""
    good = (
        all(isinstance(facts.get(name, ""), str) for name in TEXTS)
        and all(_is_number(facts.get(name, 0)) for name in NUMBERS)
        and all(isinstance(facts.get(name, {}), dict) for name in ("scheduler", "settings"))
        and 0 < len(facts["timesteps"]) <= MAX_STEPS
        and all(isinstance(t, int) and 0 <= t < 2**31 for t in facts["timesteps"])
        and [isinstance(side, int) and 0 < side <= MAX_SIDE for side in facts["size"]] == [True, True]
        and len(facts["prompt"]) <= MAX_PROMPT
        and facts.get("fixed_point_iterations", 0) in range(MAX_REFINEMENTS + 1)
        and facts.get("detail_steps", 0) in range(MAX_STEPS + 1)
    )
    if not good:
        raise ValueError("what it says of itself makes no sense")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**31)


def _check_shape(name: str, shape: list[int]) -> None:
    if DIMENSIONS.get(name) != len(shape) or not 0 < 4 * math.prod(shape) <= MAX_BYTES:
        raise ValueError(f"its tensor {name[:40]} has the shape {shape}")


@contextmanager
def _blaming(path: Path) -> Iterator[None]:
    """Turns whatever a damaged or hostile file raises into one line that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors, json and torch raise many kinds
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or not an inversion ({reason}); make it again with fit") from None
