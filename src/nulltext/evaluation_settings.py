"""What a benchmark can be told: model, data, editing, metrics; each field is an option of the `test` verb."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from nulltext.errors import UserError
from nulltext.inversion_settings import InversionSettings

Method = Literal["generated", "ddim", "null_text", "negative_prompt", "direct"]
Way = Literal["plain", "prompt_to_prompt", "default"]
InnerOptimizer = Literal["normalised_gradient", "adam"]
METHODS: tuple[Method, ...] = get_args(Method)
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True)
class ModelSettings(InversionSettings):
    """The model and the inversion.

    Args:
        pretrained: The model: farmyard (shipped), a local diffusers folder, or a hub id.
        precision: 32-true, bf16-mixed or 16-mixed.
        device: Where it computes: cpu, cuda, mps; auto takes the first GPU there is.
        variant: Which weight files to take, such as fp16.
        optimizer: Takes the inner steps: normalised_gradient as in fit, or adam as in the paper.
        learning_rate: Of the inner steps; by default 0.01 for adam, as in the paper, and fit's 0.002 otherwise.
        size: Side of the pictures in pixels; the model's own by default.
        steps: T, the DDIM steps; 50 in the paper.
        inner_steps: N, at most so many optimiser steps a timestep; 10 in the paper.
        guidance_scale: Weight w of classifier-free guidance; 7.5 as in the paper.
        start: Where the null embeddings start: 0 the empty prompt (paper), 1 the source prompt, or between.
        fixed_point_iterations: Refinements of each step of the pivot at most; 0 is plain DDIM inversion (paper).
        pivot_tolerance: A step of the pivot is refined no further once that moved its latents by less.
        learning_rate_decay: Timestep i learns at lr * (1 - decay * i); 0.01 as in the paper's code.
        tolerance: A loss below it needs no (further) inner step; 0 in the paper.
        early_stop_loss: Timestep i's inner loop ends below early_stop_loss + early_stop_growth * i; 0 never.
        early_stop_growth: See early_stop_loss; 2e-5 in the paper's code.
        fresh_guided_step: Ask the network again for the step after the inner loop, as the paper's code does; without,
            what it said last is used, which saves one or two evaluations a timestep.
        detail_steps: Steps of the plain DDIM inversion that the default edits take their fine detail from; by default
            as many as suit the model.
    """

    pretrained: str = "farmyard"
    precision: str = "32-true"
    device: str = "auto"
    variant: str | None = None
    optimizer: InnerOptimizer = "normalised_gradient"
    learning_rate: float | None = None
    size: int | None = None

    def inversion(self) -> InversionSettings:
        """The part that concerns the inversion."""
        return InversionSettings(**{f.name: getattr(self, f.name) for f in fields(InversionSettings)})


@dataclass(frozen=True)
class DataSettings:
    """The benchmark.

    Args:
        benchmark: farmyard (drawn on demand), pie_bench, imagefolder or parquet.
        folder: Where it lies; the farmyard's is drawn there, into OUTPUT/benchmark by default.
        mapping: PIE-Bench's list: mapping_file.json or mapping_file_ti2i_benchmark.json.
        columns: Parquet: which column holds image, prompt, target_prompt, mask_image, counterfactual.
        limit: At most so many edits, dealt in turn from the edit types; all by default.
        edit_types: Only these types; all by default.
    """

    benchmark: Literal["farmyard", "pie_bench", "imagefolder", "parquet"] = "farmyard"
    folder: Path | None = None
    mapping: str = "mapping_file.json"
    columns: dict[str, str] | None = None
    limit: int | None = None
    edit_types: list[str] | None = None


@dataclass(frozen=True)
class EditSettings:
    """How Prompt-to-Prompt edits; the defaults are the ones that PIE-Bench's figures were made with.

    Args:
        cross_steps: Part of the steps during which cross-attention comes from the source.
        self_steps: Part of the steps during which self-attention comes from the source.
        equalizer: Weight of the target's blended word.
        blend: Whether changes are kept to where the blended words are.
        threshold: The part of an attention map's maximum over which a place belongs to a blended word.
        max_pool: Side of the neighbourhood by which that place grows, in positions of the map, odd.
    """

    cross_steps: float = 0.4
    self_steps: float = 0.6
    equalizer: float = 2.0
    blend: bool = True
    threshold: float = 0.3
    max_pool: int = 3


@dataclass(frozen=True)
class MetricSettings:
    """The models behind the metrics; a metric whose model is not named or not there is left out by name.

    Args:
        clip: A CLIP model: farmyard (shipped), a folder or a hub id.
        dino: A DINO ViT for the structure distance, a folder or a hub id: facebook/dino-vitb8.
        lpips: LPIPS's network: squeeze, alex or vgg; needs the package lpips.
    """

    clip: str | None = "farmyard"
    dino: str | None = None
    lpips: str | None = None


@dataclass(frozen=True)
class Settings:
    """A whole benchmark run."""

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    edit: EditSettings = field(default_factory=EditSettings)
    metrics: MetricSettings = field(default_factory=MetricSettings)
    methods: tuple[Method, ...] = METHODS
    editing: tuple[Way, ...] = WAYS
    batch_size: int = 4
    seed: int = 1234
    output: Path = Path("lightning_logs/benchmark")

    def __post_init__(self) -> None:
        """Refuse what can give no table."""
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; give 1 or more")
        if not self.methods:
            raise UserError(f"no methods are named; give some of {','.join(METHODS)}")
