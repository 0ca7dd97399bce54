"""What an inversion costs and what it gives: the reference, ours, and what needs no optimisation, side by side.

    python benchmarks/speed.py                              # the shipped model, 12 drawn pictures
    python benchmarks/speed.py --photographs                # four photographs of scikit-image instead
    python benchmarks/speed.py --shape sd15                 # random weights of a large architecture, for cost alone
    python benchmarks/speed.py --batches 1,2,4,8            # throughput: pictures that go through together
    python benchmarks/speed.py --laws                       # what T, pictures and pixels cost
    python benchmarks/speed.py --profile                    # where the time of the default goes

Each method runs in a process of its own, one picture at a time, so that the peak memory is its own; so does each
row of the other tables.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from batches import compare_batches, measure_batch, sizes
from large_models import UNETS
from laws import LAWS, compare_laws, measure_law
from measuring import device_words, measure_apart, stopwatch
from methods import METHODS, SLOW, TITLES
from shapes import PARTS, ROWS, USUAL, compare_shapes, measure_shape
from subjects import check_installed, pictures_of, psnr, subject_of
from torch import Tensor

from nulltext.backbone import Backbone
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.memory import peak_memory


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


def measure(options: argparse.Namespace, method: str) -> tuple[Report, dict[str, Tensor]]:
    """Runs one method over the pictures, after a warm-up of two steps.

    Returns:
        The report, and under ``null`` the embeddings (T, pictures, L, d) that were learned.
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
    report.peak_bytes = peak_memory(backbone.device)
    return report, {"null": torch.cat(learned, dim=1)} if learned else {}


def table_of(options: argparse.Namespace) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """What makes the table that the options ask for, and what measures one of its rows."""
    if options.shape:
        return compare_shapes, measure_shape
    if options.batches:
        return compare_batches, measure_batch
    if options.laws is not None:
        return compare_laws, measure_law
    return compare, measure


def measure_here(options: argparse.Namespace) -> None:
    """The other end of ``measure_apart``."""
    from safetensors.torch import save_file

    _, measuring = table_of(options)
    found, tensors = measuring(options, options.only)
    save_file(tensors, options.to.with_suffix(".safetensors"))
    write_atomically(options.to, lambda p: p.write_text(json.dumps(asdict(found))))


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
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
    with nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory() as folder:
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
    table = parser.add_mutually_exclusive_group()
    table.add_argument(
        "--shape", help=f"cost alone, with random weights: {', '.join(UNETS)}, or a UNet's config"
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=USUAL, help="of --shape")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:4], help="of --shape")
    table.add_argument(
        "--batches", type=sizes, help="throughput in batches, such as 1,2,4,8; as many pictures as all divide"
    )
    table.add_argument(
        "--laws", nargs="*", choices=LAWS, help="cost against T, pictures and pixels: all points, or some"
    )
    table.add_argument("--profile", action="store_true", help="where the time of the default goes")
    parser.add_argument("--repeats", type=int, default=3, help="with --shape, --batches and --laws")
    parser.add_argument("--out", type=Path, help="write OUT.md and OUT.json as well")
    parser.add_argument(
        "--keep",
        type=Path,
        help="a folder for finished rows, which a further run with the same options takes",
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--to", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Measures, prints, writes."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    try:
        check_installed(*["skimage"] * options.photographs)
        if options.only:
            measure_here(options)
        elif options.profile:
            print(profile(options))
        else:
            comparing, _ = table_of(options)
            text, data = comparing(options, argv)
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
