"""What a benchmark run is told. Inversion methods bring their own settings; none of those is listed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from nulltext.errors import UserError
from nulltext.imports import find_class
from nulltext.inversion import METHODS, InversionMethod
from nulltext.inversion.methods.ddim import DDIM
from nulltext.metrics import MetricOptions
from nulltext.models.loading import LoadingOptions


@dataclass(frozen=True)
class Generated(DDIM):
    """Generates from the prompt; the picture is not seen, and noise takes the place of its pivot."""

    title: ClassVar[str] = "generated"
    sees_picture: ClassVar[bool] = False


COMPARED: dict[str, type[InversionMethod]] = {"generated": Generated, **METHODS}
"""What a benchmark can compare: every inversion method, and generation from noise."""
WAYS = ("plain", "prompt_to_prompt", "default")
"""The ways to edit: the target prompt alone; as PIE-Bench's published runs; as `edit` does with no more than it."""


@dataclass(frozen=True)
class DataOptions:
    """The benchmark.

    Args:
        benchmark: What the folder holds: pie_bench, imagefolder, parquet, run_folder, pictures (with captions: their
            reconstruction is scored), or auto to find out; farmyard draws one where no folder is given.
        folder: The benchmark's folder, or your own pictures'. Nothing is written there.
        mapping: PIE-Bench's list: mapping_file.json or mapping_file_ti2i_benchmark.json.
        columns: Parquet: which column holds image, prompt, target_prompt, mask_image, counterfactual.
        limit: At most so many edits, dealt in turn from the edit types; all by default.
        edit_types: Only these types; all by default.
        size: Side of the pictures in pixels; the model's own by default.
    """

    benchmark: str = "auto"
    folder: Path | None = None
    mapping: str = "mapping_file.json"
    columns: dict[str, str] | None = None
    limit: int | None = None
    edit_types: list[str] | None = None
    size: int | None = None


@dataclass(frozen=True)
class PublishedEdit:
    """How prompt_to_prompt edits; the defaults are those of PIE-Bench's published figures.

    Args:
        cross_steps: Share of the steps during which cross-attention comes from the source.
        self_steps: Share of the steps during which self-attention comes from the source.
        equalizer: Weight of the target's blended word.
        blend: Whether changes stay where the blended words are.
        threshold: Share of an attention map's maximum above which a place belongs to a blended word.
        max_pool: Side of the neighbourhood by which that place grows, in positions of the map, odd.
    """

    cross_steps: float = 0.4
    self_steps: float = 0.6
    equalizer: float = 2.0
    blend: bool = True
    threshold: float = 0.3
    max_pool: int = 3


@dataclass(frozen=True)
class Settings:
    """A benchmark run.

    Args:
        methods: The inversion methods to compare, by the name of their column.
        loading: The model.
        data: The benchmark.
        edit: How prompt_to_prompt edits.
        metrics: The networks behind the metrics.
        editing: plain, prompt_to_prompt, default, or import paths of kinds of edits; reconstructions are always scored.
        precision: 32-true, bf16-mixed or 16-mixed.
        device: cpu, cuda, cuda:1, mps; auto takes the first GPU there is.
        batch_size: Pictures inverted at a time.
        seed: Of the noise for generated pictures; nothing else is random.
        output: Folder for records, pictures, tables and TensorBoard's events.
        finished: Folders of pictures that another tool finished, by the name of their column; scored like ours.
        round_trip: Also takes each edit back, inverted under the target prompt, and scores what comes back; 10 goes
            there and back ten times. Once takes twice the time.
        baseline: The method that the others are compared with on the same pictures, by default the first.
    """

    methods: Mapping[str, InversionMethod] = field(default_factory=lambda: build_methods(list(COMPARED)))
    loading: LoadingOptions = field(default_factory=LoadingOptions)
    data: DataOptions = field(default_factory=DataOptions)
    edit: PublishedEdit = field(default_factory=PublishedEdit)
    metrics: MetricOptions = field(default_factory=MetricOptions)
    editing: Sequence[str] = WAYS
    precision: str | int = "32-true"
    device: str = "auto"
    batch_size: int = 4
    seed: int = 1234
    output: Path = Path("lightning_logs/benchmark")
    finished: dict[str, Path] = field(default_factory=dict)
    round_trip: bool | int = False
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuses what can give no table."""
        if self.batch_size < 1:
            raise UserError(f"batch_size is {self.batch_size}; give 1 or more")
        if self.round_trip < 0:
            raise UserError(f"round_trip is {self.round_trip}; give true, false, or how many times")
        columns = [*self.methods, *self.finished]
        if not columns:
            raise UserError(f"no methods are named; give some of {','.join(COMPARED)}")
        if self.baseline is not None and self.baseline not in columns:
            raise UserError(f"--baseline {self.baseline} is none of {','.join(columns)}")


def find_compared(name: str) -> type[InversionMethod]:
    """The method of that name, or of that import path; UserError where there is none."""
    return find_class(name, COMPARED, InversionMethod, "--methods")


def build_methods(
    names: Sequence[str], shared: Mapping[str, Any] | None = None
) -> dict[str, InversionMethod]:
    """Methods by the name of their column, which is the last part of an import path.

    Each has those of the shared settings, such as ``{"steps": 20, "inner_steps": 10}``, that it knows. UserError where
    there is no such method, or a setting makes no sense.
    """
    shared = shared or {}
    methods = {}
    for name in names:
        kind = find_compared(name)
        own = {f.name: shared[f.name] for f in fields(kind) if f.init and f.name in shared}
        methods[name.rpartition(".")[2]] = kind(**own)
    return methods
