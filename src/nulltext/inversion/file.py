"""An inversion and its file ``inversion.safetensors``."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltext.diffusion import Schedule
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion.reading import FORMAT_VERSION, read_tensors
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

LEVELS_TOLERANCE = (
    1e-4  # of noise levels, between the file and the model: what rounding may do, and no schedule does
)


@dataclass(frozen=True)
class Inversion:
    """What an inversion leaves: enough to reconstruct and edit the picture with the same model."""

    null_embeddings: Tensor  # (T, L, d) fp32
    noise: Tensor  # (C, h, w) fp32, z_T
    prompt: str
    guidance_scale: float
    model: str  # the name it was loaded by
    fingerprint: str  # of the network's weights
    scheduler: dict[str, Any]  # the scheduler's config
    timesteps: list[float]  # T, noisiest first; integers for diffusion
    size: tuple[int, int]  # (height, width) in pixels
    crop: str = "center"
    source_sha256: str = ""
    fixed_point_iterations: int = 0
    pivot_tolerance: float = 0.0
    psnr: float = float("nan")  # dB, the reconstruction against the picture
    settings: dict[str, Any] = field(default_factory=dict)
    method: str = "null_text"
    variant: str | None = None  # which weight files the model was loaded from, such as fp16
    revision: str | None = None  # which revision of a hub's model
    family: str | None = None  # the import path of a model family from outside the package
    kind: str = "epsilon"  # what the network predicts
    alphas: list[float] = field(default_factory=list)  # T + 1 levels, noisiest first; none in older files
    sigmas: list[float] = field(default_factory=list)
    placement: dict[str, Any] = field(default_factory=dict)  # how the photo's pixels map to the model's
    pooled: Tensor | None = None  # (p,), SDXL: the null text's pooled embedding
    pivot: Tensor | None = None  # (T + 1, C, h, w), where the method replays it
    residuals: Tensor | None = None  # (T, C, h, w), what each step adds, where the pivot was drawn

    @property
    def steps(self) -> int:
        """The number of steps T."""
        return len(self.null_embeddings)

    @property
    def nbytes(self) -> int:
        """What its tensors take in the file, fp32."""
        return sum(4 * value.numel() for value in vars(self).values() if isinstance(value, Tensor))

    def save(self, path: Path) -> None:
        """Writes ``inversion.safetensors``: the tensors, and everything else as JSON in the metadata."""
        from safetensors.torch import save_file

        tensors, facts = {}, {"format_version": FORMAT_VERSION}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                tensors[name] = value.detach().float().cpu().contiguous().clone()  # none may share memory
            elif value is not None:
                facts[name] = value
        metadata = {"nulltext": json.dumps(facts, sort_keys=True, default=str)}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> Inversion:
        """Reads ``inversion.safetensors``, of an older nulltext as well; whatever is wrong is a ``UserError``."""
        facts, tensors = read_tensors(Path(path))
        try:
            return cls(**{**facts, **tensors, "size": tuple(facts["size"])})
        except TypeError as error:
            raise UserError(f"{path} is not an inversion ({error}); make it again with fit") from None

    def schedule(self, model: DiffusionModel) -> Schedule:
        """The schedule with which it was made; the levels of a flow are those of the file."""
        if model.kind == "flow" and self.sigmas:
            return Schedule.flow(torch.tensor(self.sigmas), torch.tensor(self.timesteps)).to(model.device)
        return model.schedule(self.steps, self.size)

    def check(self, model: DiffusionModel) -> None:
        """Refuses a model, schedule or size other than this inversion was made with; both are named."""
        if not model.matches(self.fingerprint):
            raise UserError(
                f"this inversion was made with {self.model} (weights {self.fingerprint[:8]}), not with "
                f"{model.name} (weights {model.fingerprint[:8]}); invert the picture again or load {self.model}"
            )
        schedule = self.schedule(model)
        timesteps, sigmas = schedule.t.tolist(), levels(schedule)[1]
        if not _close(timesteps, self.timesteps) or (self.sigmas and not _close(sigmas, self.sigmas)):
            raise UserError(
                f"this inversion's timesteps start {self.timesteps[:3]}, the model's scheduler gives {timesteps[:3]}; "
                "restore the scheduler's config or invert the picture again"
            )
        embeddings, noise = (self.steps, *model.embedding_shape), model.latent_shape(self.size)
        along = [x[0] for x in (self.pivot, self.residuals) if x is not None]
        stored = [self.noise, *along]
        rows, width = self.null_embeddings.shape[1:]
        fits = width == embeddings[2] and model.learned.fits(rows, width)
        if not fits or any(tuple(x.shape) != noise for x in stored):
            raise UserError(
                f"this inversion holds {tuple(self.null_embeddings.shape)} embeddings and "
                f"{' and '.join(str(tuple(x.shape)) for x in stored)} noise where {model.name} takes {embeddings} "
                f"and {noise}; invert the picture again"
            )

    def null_texts(self, model: DiffusionModel, start: Conditioning | None = None) -> list[Conditioning]:
        """The learned null text of each step, one row each; what learning left alone is as in ``start`` (one row)."""
        null = model.embed("", self.size) if start is None else start
        if self.pooled is not None:
            extras = {**null.extras, "pooled": self.pooled[None].to(model.device)}
            null = dataclasses.replace(null, extras=extras)
        learned = self.null_embeddings.to(model.device)
        return [model.with_learned(null, embedding[None]) for embedding in learned]


def levels(schedule: Schedule) -> tuple[list[float], list[float]]:
    """The T + 1 alphas and sigmas of a schedule, noisiest first."""
    alphas = torch.cat([schedule.alpha, schedule.alpha_next[-1:]])
    sigmas = torch.cat([schedule.sigma, schedule.sigma_next[-1:]])
    return alphas.tolist(), sigmas.tolist()


def _close(ours: list[float], theirs: list[float]) -> bool:
    return len(ours) == len(theirs) and all(
        abs(a - b) <= LEVELS_TOLERANCE for a, b in zip(ours, theirs, strict=True)
    )
