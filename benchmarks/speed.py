"""What an inversion costs and what it gives: the reference, ours, and what needs no optimisation, side by side.

    python benchmarks/speed.py                              # the shipped model, 12 drawn pictures
    python benchmarks/speed.py --photographs                # four photographs of scikit-image instead
    python benchmarks/speed.py --shape sd15                 # random weights of a large architecture, for cost alone
    python benchmarks/speed.py --profile                    # where the time of the default goes

Each method runs in a process of its own, one picture at a time, so that the peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from reference import Reference, ddim_scheduler
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.inversion import InversionSettings, ddim_invert, optimise, sample

PAPER = InversionSettings(
    steps=50,
    inner_steps=10,
    start=0.0,
    fixed_point_iterations=0,
    tolerance=0.0,
    early_stop_loss=1e-5,
    early_stop_growth=2e-5,
)
DEFAULT = InversionSettings()
PHOTOGRAPHS = {  # of scikit-image, with what the farmyard's vocabulary can say of them
    "cat": "a photo of a brown cat",
    "astronaut": "a photo of a white dog with a red hat",
    "coffee": "a photo of a brown cow next to a fence",
    "rocket": "a photo of a white chicken in the snow",
}
TITLES = {
    "reference": "reference, unfrozen, fp32",
    "paper": "ours, `paper`",
    "default": "ours, the default",
    "ddim": "DDIM inversion, guided walk back",
    "negative_prompt": "negative-prompt inversion",
}


@dataclass
class Subject:
    """A picture's latents and what it shows; the method's input."""

    z_0: Tensor  # (1, 4, h, w)
    cond: TextEmbedding
    null: TextEmbedding


@dataclass
class Outcome:
    """Where the guided walk ended, and the null embeddings if any were learned."""

    z_0: Tensor  # (1, 4, h, w)
    null: Tensor | None = None  # (T, L, d)


@dataclass
class Report:
    """One method over all pictures; lists have an entry a picture."""

    method: str
    forwards: list[int] = field(default_factory=list)
    backwards: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)  # dB, to the VAE reconstruction
    latent_error: list[float] = field(default_factory=list)  # mean square
    peak_bytes: int = 0
    device: str = ""


# ------------------------------------------------------------------------------------------------ the methods


def run_reference(backbone: Backbone, subject: Subject, steps: int) -> Outcome:
    """The authors' algorithm on the same UNet, its weights not frozen."""
    scheduler = ddim_scheduler(backbone.scheduler_config, steps)
    added = None
    if subject.cond.pooled is not None:
        added = {"text_embeds": subject.cond.pooled, "time_ids": subject.cond.time_ids}
    theirs = Reference(backbone.unet, scheduler, subject.null.sequence, subject.cond.sequence, added)
    learned, z_0 = theirs.null_optimisation(theirs.ddim_inversion(subject.z_0))
    backbone.forwards += theirs.forwards
    backbone.backwards += theirs.backwards
    return Outcome(z_0, torch.cat(learned))


def run_ours(backbone: Backbone, subject: Subject, steps: int | None, settings: InversionSettings) -> Outcome:
    """Null-text inversion with some settings."""
    schedule = backbone.schedule(steps or settings.steps)
    k = settings.fixed_point_iterations
    pivot = ddim_invert(backbone, schedule, subject.z_0, subject.cond, fixed_point_iterations=k)
    done = list(optimise(backbone, schedule, pivot, subject.cond, settings))
    return Outcome(done[-1][0].z, torch.cat([null for _, null in done]))


def run_without_optimisation(
    backbone: Backbone, subject: Subject, steps: int, negative_prompt: bool
) -> Outcome:
    """Plain DDIM inversion, then the guided walk back under the empty or the source prompt as the null text."""
    schedule = backbone.schedule(steps)
    pivot = ddim_invert(backbone, schedule, subject.z_0, subject.cond)
    null = subject.cond if negative_prompt else subject.null
    return Outcome(sample(backbone, schedule, pivot[0], subject.cond, [null], PAPER.guidance_scale))


Method = Callable[[Backbone, Subject, Any], Outcome]
METHODS: dict[str, tuple[Method, int]] = {  # the method, and its number of steps
    "reference": (run_reference, 50),
    "paper": (partial(run_ours, settings=PAPER), PAPER.steps),
    "default": (partial(run_ours, settings=DEFAULT), DEFAULT.steps),
    "ddim": (partial(run_without_optimisation, negative_prompt=False), 50),
    "negative_prompt": (partial(run_without_optimisation, negative_prompt=True), 50),
}
SLOW = ("reference", "paper")


# ------------------------------------------------------------------------------------------------ the pictures


def drawn_pictures(number: int, size: int) -> list[tuple[Tensor, str]]:
    """Held-out scenes of the farmyard: pixels (3, S, S) in [-1, 1] and captions."""
    from nulltext.farmyard.scene import HELD_OUT_SEEDS, caption, draw, random_scene
    from nulltext.pictures import to_pixels

    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[:number]]
    return [(to_pixels(draw(scene, size)), caption(scene)) for scene in scenes]


def photographs(size: int) -> list[tuple[Tensor, str]]:
    """Four photographs that scikit-image carries, cut square from the middle."""
    from PIL import Image, ImageOps
    from skimage import data

    from nulltext.pictures import to_pixels

    pictures = [ImageOps.fit(Image.fromarray(getattr(data, name)()), (size, size)) for name in PHOTOGRAPHS]
    return [
        (to_pixels(picture), prompt) for picture, prompt in zip(pictures, PHOTOGRAPHS.values(), strict=True)
    ]


def pictures_of(options: argparse.Namespace, size: int) -> list[tuple[Tensor, str]]:
    """The pictures that the options ask for."""
    return photographs(size) if options.photographs else drawn_pictures(options.pictures, size)


def subject_of(backbone: Backbone, pixels: Tensor, prompt: str) -> Subject:
    """A picture and its prompt as the model sees them."""
    z_0 = backbone.encode_image(pixels[None])
    return Subject(z_0, backbone.embed_prompt(prompt), backbone.embed_prompt(""))


def psnr(a: Tensor, b: Tensor) -> float:
    """dB, of pixels in [-1, 1]."""
    return float(-10 * ((a - b).square().mean() / 4).log10())


# ------------------------------------------------------------------------------------------------ measuring


def stopwatch(device: torch.device) -> Callable[[], float]:
    """Starts to measure; the function returned gives the seconds since, by events on CUDA."""
    if device.type != "cuda":
        started = time.perf_counter()
        return lambda: time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()

    def stop() -> float:
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000

    return stop


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: of the device on CUDA, of this process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_words(device: torch.device) -> str:
    """What computed, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def measure(options: argparse.Namespace, method: str) -> tuple[Report, dict[str, Tensor]]:
    """Runs one method over the pictures, after a warm-up of two steps.

    Returns:
        The report, and under ``null`` the embeddings (pictures, T, L, d) that were learned.
    """
    precision = "32-true" if method == "reference" else options.precision
    backbone = Backbone.from_pretrained(options.model, precision=precision, device=options.device)
    backbone.unet.requires_grad_(method == "reference")
    run, steps = METHODS[method]
    report, learned = Report(method, device=device_words(backbone.device)), []
    pictures = pictures_of(options, backbone.default_size)
    if method in SLOW and options.slow_pictures is not None:
        pictures = pictures[: options.slow_pictures]
    subjects = [subject_of(backbone, *picture) for picture in pictures]
    run(backbone, subjects[0], 2)
    for subject in subjects:
        backbone.forwards = backbone.backwards = 0
        elapsed = stopwatch(backbone.device)
        outcome = run(backbone, subject, steps)
        report.seconds.append(elapsed())
        report.forwards.append(backbone.forwards)
        report.backwards.append(backbone.backwards)
        vae, ours = (backbone.decode_latents(z) for z in (subject.z_0, outcome.z_0))
        report.psnr.append(psnr(ours, vae))
        report.latent_error.append(float((outcome.z_0 - subject.z_0).square().mean()))
        learned += [] if outcome.null is None else [outcome.null]
    report.peak_bytes = peak_bytes(backbone.device)
    return report, {"null": torch.stack(learned)} if learned else {}


def measure_apart(method: str, argv: Sequence[str], folder: Path) -> tuple[Any, Path]:
    """Measures one method in a process of its own; gives what it found and the file of its tensors."""
    found = folder / f"{method}.json"
    command = [sys.executable, "-W", "ignore", __file__, *argv, "--only", method, "--to", str(found)]
    print(f"measuring {method} ...", file=sys.stderr, flush=True)
    if subprocess.run(command, check=False).returncode:
        raise UserError(f"the measurement of {method} failed; see above")
    return json.loads(found.read_text()), found.with_suffix(".safetensors")


def measure_here(options: argparse.Namespace) -> None:
    """The other end of ``measure_apart``."""
    from safetensors.torch import save_file

    if options.shape:
        found, tensors = asdict(measure_shape(options, options.only)), {}
    else:
        report, tensors = measure(options, options.only)
        found = asdict(report)
    options.to.write_text(json.dumps(found))
    save_file(tensors, options.to.with_suffix(".safetensors"))


# ------------------------------------------------------------------------------------------------ the table


def table(reports: Sequence[Report]) -> str:
    """The reports as a Markdown table."""
    by_name = {report.method: report for report in reports}
    lines = [
        "| method | pictures | UNet forwards | backwards | seconds, median | to the reference | to DDIM "
        "| PSNR to the VAE, mean (worst) | latent error | peak memory |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for report in reports:
        ratios = [_ratio(report, by_name.get(other)) for other in ("reference", "ddim")]
        cells = [
            TITLES[report.method],
            f"{len(report.seconds)}",
            f"{statistics.mean(report.forwards):.0f}",
            f"{statistics.mean(report.backwards):.0f}",
            f"{statistics.median(report.seconds):.2f}",
            *ratios,
            f"{statistics.mean(report.psnr):.1f} ({min(report.psnr):.1f})",
            f"{statistics.mean(report.latent_error):.1e}",
            f"{report.peak_bytes / 2**20:.0f} MiB",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _ratio(report: Report, other: Report | None) -> str:
    if other is None:
        return "-"
    return f"{statistics.median(report.seconds) / statistics.median(other.seconds):.3f}"


def embeddings_apart(ours: Path, theirs: Path) -> dict[str, float]:
    """How far the embeddings of ``paper`` are from the reference's: the largest entry, and the root mean square."""
    from safetensors.torch import load_file

    difference = load_file(ours)["null"] - load_file(theirs)["null"]
    return {"largest": float(difference.abs().max()), "rms": float(difference.square().mean().sqrt())}


def compare(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """All methods over the pictures: Markdown, and the same as data."""
    with tempfile.TemporaryDirectory() as folder:
        found = {name: measure_apart(name, argv, Path(folder)) for name in options.methods}
        reports = [Report(**report) for report, _ in found.values()]
        apart = None
        if {"reference", "paper"} <= found.keys():
            apart = embeddings_apart(found["paper"][1], found["reference"][1])
    subjects = "Photographs of scikit-image" if options.photographs else "Held-out drawings"
    text = (
        f"{subjects}, model {options.model}, precision {options.precision} "
        f"(the reference fp32), {reports[0].device}, torch {torch.__version__}.\n\n{table(reports)}\n"
    )
    if apart:
        text += (
            f"\nNull embeddings of `paper` against the reference's: largest difference {apart['largest']:.1e}, "
            f"root mean square {apart['rms']:.1e}.\n"
        )
    data = {"torch": torch.__version__, "embeddings_apart": apart, "methods": [asdict(r) for r in reports]}
    return text, data


# ------------------------------------------------------------------------------------------------ shapes

UNETS: dict[str, dict[str, Any]] = {
    "sd15": {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    "sdxl": {
        "sample_size": 128,
        "cross_attention_dim": 2048,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 10],
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
SHAPES = {  # name of a row: type of the weights, whether they are frozen, their layout
    "reference": (torch.float32, False, torch.contiguous_format),
    "ours_fp32": (torch.float32, True, torch.contiguous_format),
    "ours_bf16": (torch.bfloat16, True, torch.contiguous_format),
    "ours_bf16_channels_last": (torch.bfloat16, True, torch.channels_last),
}


@dataclass
class Units:
    """Seconds that one evaluation takes, and the peak memory of the process that did them."""

    name: str
    forward: float
    pair: float  # a forward of a batch of two
    gradient: float  # a forward and the backward to the null embedding
    pair_gradient: float  # the same in one batch with the conditional prediction
    stem: float  # of a forward, what comes before the first cross-attention
    peak_bytes: int
    parameters: int
    device: str


def random_unet(shape: str, dtype: torch.dtype) -> Any:
    """A UNet of a known shape, or of a diffusers config (its file, or a model folder), with random weights."""
    from diffusers import UNet2DConditionModel

    if shape in UNETS:
        config = UNETS[shape]
    else:
        file = Path(shape)
        file = next((f for f in (file / "unet/config.json", file / "config.json") if f.is_file()), file)
        if not file.is_file():
            raise UserError(
                f"there is no UNet config {shape}; give {', '.join(UNETS)}, a model folder, or a file"
            )
        config = UNet2DConditionModel.load_config(file)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return UNet2DConditionModel.from_config(config).eval()
    finally:
        torch.set_default_dtype(default)


class Shape(Backbone):
    """A backbone that is a UNet alone: enough to measure what its evaluations cost."""

    def __init__(self, unet: Any, device: str) -> None:
        self.unet = unet.to(device)
        self.scheduler_config = {"prediction_type": "epsilon"}
        self.forwards = self.backwards = 0

    def embed_prompt(
        self, prompts: str | Sequence[str], size: tuple[int, int] | None = None
    ) -> TextEmbedding:
        """A random embedding of the shape that the UNet reads."""
        config = self.unet.config
        text = TextEmbedding(torch.randn(1, 77, config.cross_attention_dim, device=self.device))
        if config.addition_embed_type != "text_time":
            return text
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        side = 8.0 * config.sample_size
        ids = torch.tensor([[side, side, 0.0, 0.0, side, side]], device=self.device)
        return TextEmbedding(text.sequence, torch.randn(1, pooled, device=self.device), ids)


def measure_shape(options: argparse.Namespace, name: str) -> Units:
    """What one forward, one batch of two and one gradient cost, after a warm-up of a gradient."""
    dtype, frozen, layout = SHAPES[name]
    torch.manual_seed(0)
    unet = random_unet(options.shape, dtype).requires_grad_(not frozen).to(memory_format=layout)
    backbone = Shape(unet, options.device)
    side = unet.config.sample_size
    z = torch.randn(1, unet.config.in_channels, side, side, device=backbone.device)
    text = backbone.embed_prompt("")
    pair, both = torch.cat([z, z]), TextEmbedding.cat([text, text])
    forward = torch.no_grad()(lambda: backbone.predict_noise(z, 500, text))
    forward_pair = torch.no_grad()(lambda: backbone.predict_noise(pair, 500, both))

    def gradient(z: Tensor, text: TextEmbedding) -> None:
        sequence = text.sequence.clone().requires_grad_(True)
        backbone.predict_noise(z, 500, text.with_sequence(sequence)).square().mean().backward()

    gradient(z, text)
    works = [forward, forward_pair, partial(gradient, z, text)]
    seconds = [median_seconds(backbone.device, work, options.repeats) for work in works]
    peak = peak_bytes(backbone.device)  # of what an inversion does; the batch of two below is a lead
    seconds.append(median_seconds(backbone.device, partial(gradient, pair, both), 1) if frozen else 0.0)
    return Units(
        name,
        *seconds,
        stem=stem_seconds(backbone, forward),
        peak_bytes=peak,
        parameters=sum(p.numel() for p in unet.parameters()),
        device=device_words(backbone.device),
    )


def stem_seconds(backbone: Backbone, forward: Callable[[], Any]) -> float:
    """How long a forward takes to reach the first cross-attention, so far the same for every embedding."""
    found: list[float] = []
    first = next(module for name, module in backbone.unet.named_modules() if name.endswith(".attn2"))
    hook = first.register_forward_pre_hook(lambda *_: found.append(elapsed()))
    elapsed = stopwatch(backbone.device)
    forward()
    hook.remove()
    return found[0]


def median_seconds(device: torch.device, work: Callable[[], Any], repeats: int) -> float:
    """The median time of a piece of work."""
    seconds = []
    for _ in range(repeats):
        elapsed = stopwatch(device)
        work()
        seconds.append(elapsed())
    return statistics.median(seconds)


def seconds_of(units: Units, settings: InversionSettings, taken: int, pairs: int) -> float:
    """An inversion's time from the times of its parts.

    Args:
        units: The parts.
        settings: T, and how the pivot is found.
        taken: Inner steps in all.
        pairs: Guided steps that ask both halves anew, as the reference's do.
    """
    t, k = settings.steps, settings.fixed_point_iterations
    plain = t * k + min(t, 2) if k else t  # the pivot
    plain += t  # the conditional predictions, or from the source prompt the last predictions
    plain += t if settings.warm_start and not pairs else 0  # the last null predictions, else in the pairs
    return plain * units.forward + taken * units.gradient + pairs * units.pair


def compare_shapes(options: argparse.Namespace, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The reference's and our inversion at a large shape: Markdown, and the same as data."""
    names = [name for name in SHAPES if name in options.rows]
    with tempfile.TemporaryDirectory() as folder:
        found = {name: Units(**measure_apart(name, argv, Path(folder))[0]) for name in names}
    lines = [
        "| | forward, s | batch of two | gradient | gradient in a batch of two | stem | peak memory "
        "| `paper`, all inner steps, min | default, every timestep optimised | default, none |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    rows: list[dict[str, Any]] = []
    for name, units in found.items():
        pairs = PAPER.steps if name == "reference" else 0
        minutes = [seconds_of(units, PAPER, PAPER.steps * PAPER.inner_steps, pairs) / 60]
        if name != "reference":
            minutes += [
                seconds_of(units, DEFAULT, n, 0) / 60 for n in (DEFAULT.steps * DEFAULT.inner_steps, 0)
            ]
        times = (units.forward, units.pair, units.gradient, units.pair_gradient, units.stem)
        cells = [f"{x:.3f}" if x else "-" for x in times]
        cells += [f"{units.peak_bytes / 2**30:.2f} GiB", *(f"{m:.2f}" for m in minutes)]
        lines.append(f"| {name} | {' | '.join(cells + ['-'] * (9 - len(cells)))} |")
        rows.append({**asdict(units), "minutes": minutes})
    first = next(iter(found.values()))
    text = (
        f"Random weights of {options.shape} ({first.parameters / 1e6:.0f} million), at its own resolution, "
        f"{first.device}, torch {torch.__version__}. Minutes are counts of evaluations times the measured parts.\n\n"
        + "\n".join(lines)
        + "\n"
        + "".join(f"\n{line}" for line in against_the_reference(rows))
        + "\n"
    )
    return text, {"torch": torch.__version__, "rows": rows}


def against_the_reference(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Ours in shares of the reference's time and memory, a line for each of our rows."""
    reference = next((row for row in rows if row["name"] == "reference"), None)
    lines = []
    for row in rows if reference else []:
        if row is reference:
            continue
        paper, most, least = (reference["minutes"][0] / minutes for minutes in row["minutes"])
        memory = row["peak_bytes"] / reference["peak_bytes"]
        lines.append(
            f"- {row['name']} against the reference: `paper` {1 / paper:.2f} of its time, {memory:.2f} of its memory; "
            f"the default {most:.0f} times as fast if every timestep is optimised, {least:.0f} if none is."
        )
    return lines


# ------------------------------------------------------------------------------------------------ profiling


def profile(options: argparse.Namespace) -> str:
    """Where the time of the default goes on one picture: operators by their own time."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watching

    backbone = Backbone.from_pretrained(options.model, precision=options.precision, device=options.device)
    subject = subject_of(backbone, *pictures_of(options, backbone.default_size)[0])
    run, steps = METHODS["default"]
    run(backbone, subject, 2)
    cuda = backbone.device.type == "cuda"
    with watching(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as seen:
        run(backbone, subject, steps)
    key = "self_cuda_time_total" if cuda else "self_cpu_time_total"
    return seen.key_averages().table(sort_by=key, row_limit=20, max_name_column_width=60)


# ------------------------------------------------------------------------------------------------ command line


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", default="farmyard", help="the shipped model, a diffusers folder, or a hub id"
    )
    parser.add_argument("--precision", default="32-true", help="of ours: 32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--pictures", type=int, default=12, help="how many drawn scenes")
    parser.add_argument("--slow-pictures", type=int, help="how many of them for the reference and `paper`")
    parser.add_argument("--photographs", action="store_true", help="scikit-image's instead of drawn scenes")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument(
        "--shape", help=f"cost alone, with random weights: {', '.join(UNETS)}, or a UNet's config"
    )
    parser.add_argument("--rows", nargs="+", choices=SHAPES, default=list(SHAPES), help="of --shape")
    parser.add_argument("--repeats", type=int, default=3, help="of each part with --shape")
    parser.add_argument("--profile", action="store_true", help="where the time of the default goes")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json as well")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    try:
        if options.only:
            measure_here(options)
        elif options.profile:
            print(profile(options))
        else:
            text, data = (compare_shapes if options.shape else compare)(options, argv)
            print(text)
            if options.out:
                write_atomically(options.out.with_suffix(".md"), lambda p: p.write_text(text))
                written = json.dumps(data, indent=1) + "\n"
                write_atomically(options.out.with_suffix(".json"), lambda p: p.write_text(written))
    except UserError as error:
        print(f"speed: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
