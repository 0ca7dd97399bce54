"""Negative-prompt inversion (Miyake et al., arXiv 2305.16807): the source prompt in the place of the null text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nulltext.errors import UserError
from nulltext.inversion.base import InversionMethod, OnInnerStep, State, StepRecord
from nulltext.inversion.methods.learning import Learning
from nulltext.inversion.methods.null_text import learn
from nulltext.inversion.methods.optimizers import NormalisedGradient
from nulltext.models.base import DiffusionModel
from nulltext.models.conditioning import Conditioning

if TYPE_CHECKING:
    from nulltext.inversion.file import Inversion


@dataclass(frozen=True)
class NegativePrompt(InversionMethod):
    """Negative-prompt inversion (Miyake et al., arXiv 2305.16807): under the source prompt guidance cancels.

    Its reconstruction is as good as the pivot; a refined pivot makes it nearly exact. Corrections bend the embeddings
    where the trajectory still leaves the pivot.

    Args:
        corrections: Inner steps of each timestep at most; 0 is negative-prompt inversion as published.
        correction_rate: Root mean square of the entries of a correction.
        correction_tolerance: A timestep whose loss is below takes no (further) correction.
    """

    corrections: int = 0
    correction_rate: float = 0.002
    correction_tolerance: float = 1e-5

    title: ClassVar[str] = "negative prompt"

    def __post_init__(self) -> None:
        """Refuses values that make no sense, each with what to type instead."""
        super().__post_init__()
        if self.corrections < 0:
            raise UserError(
                f"corrections must be 0 or more, not {self.corrections}; 0 is negative-prompt inversion as published"
            )

    def null_text(
        self, model: DiffusionModel, cond: Conditioning, size: tuple[int, int] | None
    ) -> Conditioning:
        """The source prompt."""
        return cond

    def null_texts(
        self, model: DiffusionModel, inversion: Inversion, cond: Conditioning
    ) -> list[Conditioning]:
        """The source prompt, with its corrections where the inversion holds them."""
        corrected = inversion.settings.get("corrections")
        return inversion.null_texts(model, cond) if corrected else [cond] * inversion.steps

    def step(
        self, model: DiffusionModel, state: State, i: int, on_inner_step: OnInnerStep | None = None
    ) -> StepRecord:
        """One guided step, with its corrections."""
        rate, w = self.correction_rate, self.guidance_scale
        learning = Learning(
            self.corrections if w != 1 else 0,
            lambda parameters: NormalisedGradient(parameters, lr=rate),
            learning_rate_decay=0.01,
            tolerance=self.correction_tolerance,
        )
        return learn(model, state, i, learning, w, on_inner_step)
