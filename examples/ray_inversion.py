r"""Inverts the pictures of a manifest on a Ray cluster, beyond what one machine can.

    pip install -e '.[ray]'
    python examples/ray_inversion.py farm/metadata.jsonl --out inversions --workers 2
    python examples/ray_inversion.py farm/metadata.jsonl --workers 8 --num_gpus 1 --precision bf16-mixed \
        --pretrained stable-diffusion-v1-5/stable-diffusion-v1-5

It joins the cluster that RAY_ADDRESS or ``ray start`` names, else it starts Ray on this machine alone. Each worker
holds the model once and inverts one picture after another; nothing crosses between them but the manifest's rows. What
is in the output folder already, by content and settings, is not done again, so the same command continues where a
cluster was taken away. A picture that cannot be used becomes a row of results.jsonl with its reason.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import torch

from nulltext.data.find import unique_names
from nulltext.data.frame import Frame
from nulltext.data.metadata import read_metadata
from nulltext.data.picture import Picture, read_picture
from nulltext.errors import UserError
from nulltext.files import write_text
from nulltext.inversion import InversionMethod, find_method
from nulltext.inversion.invert import invert
from nulltext.inversion.reading import read_facts
from nulltext.models import DiffusionModel, check_model
from nulltext.runs.finished import ARTIFACT, expected_facts, is_finished

PICTURES_IN_BLOCK = 64  # at most: what a worker that dies lets another begin again
BLOCKS_FOR_WORKER = 8  # at least, so that no worker is left with the last long one


class Inverter:
    """What a worker holds: the model. Called with a batch of the manifest's rows.

    Args:
        out: The folder to write to, which all workers see.
        pretrained: The model.
        precision: Of its network.
        device: cpu or cuda.
        settings: The settings of the inversion method that differ from the defaults; ``method`` names another method.
    """

    def __init__(
        self, out: str, pretrained: str, precision: str, device: str, settings: dict[str, Any]
    ) -> None:
        self.out = Path(out)
        self.model = DiffusionModel.from_pretrained(pretrained, precision=precision, device=device)
        self.method = method_of(settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Inverts each row (path, name, prompt); gives name, folder, psnr in dB, seconds and what went wrong."""
        rows = [self.row(*row) for row in zip(batch["path"], batch["name"], batch["prompt"], strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def row(self, path: str, name: str, prompt: str) -> dict[str, Any]:
        """One picture, as a row of the results."""
        started, psnr, folder, reason = time.perf_counter(), math.nan, "", ""
        try:
            frame = Frame(size=self.model.default_size, multiple=self.model.size_multiple)
            picture = read_picture(Path(path), frame, prompt=prompt or None)
            folder = self.folder(name, picture)
            psnr = self.invert(picture, self.out / folder / ARTIFACT)
        except (UserError, OSError, torch.OutOfMemoryError) as error:
            reason = " ".join(str(error).split())
        seconds = time.perf_counter() - started
        return {"name": name, "folder": folder, "psnr": psnr, "seconds": seconds, "reason": reason}

    def folder(self, name: str, picture: Picture) -> str:
        """Where the picture's inversion goes: to its name, unless another picture of that name lies there."""
        artifact = self.out / name / ARTIFACT
        other = artifact.is_file() and facts_of(artifact).get("source_sha256") not in (None, picture.sha256)
        return f"{name}-{picture.sha256[:8]}" if other else name

    def invert(self, picture: Picture, artifact: Path) -> float:
        """Writes the artifact unless it is there; its fidelity in dB."""
        facts = {"source_sha256": picture.sha256, "prompt": picture.prompt, "crop": picture.crop}
        facts |= expected_facts(self.model, self.method, picture.size)
        if is_finished(artifact, facts):
            return float(facts_of(artifact).get("psnr", math.nan))
        inversion = invert(self.model, picture, method=self.method)
        inversion.save(artifact)
        return inversion.psnr


def method_of(settings: dict[str, Any]) -> InversionMethod:
    """The inversion method with its settings; null-text inversion where ``method`` names no other.

    Raises:
        UserError: No such method or setting, or a value that makes no sense.
    """
    given = dict(settings)
    kind = find_method(str(given.pop("method", "null_text")))
    try:
        return kind(**given)
    except TypeError as error:
        known = ", ".join(kind.__dataclass_fields__)
        raise UserError(f"--settings: {error}; there are method, {known}") from error


def facts_of(artifact: Path) -> dict[str, Any]:
    """The facts of an inversion; none where its file is damaged."""
    try:
        return read_facts(artifact)
    except UserError:
        return {}


def start_ray(workers: int, num_gpus: float) -> None:
    """Joins a cluster that is there, else starts one of this machine, with room for the workers.

    Raises:
        UserError: This machine has too few GPUs. (A cluster may grow, so there Ray waits and says for what.)
    """
    import ray

    if ray.is_initialized():
        return
    try:
        ray.init(address="auto", logging_level="ERROR")
        return
    except ConnectionError:
        cpus = max(workers, os.cpu_count() or 1)  # a worker that waits for a CPU would wait for ever
        ray.init(num_cpus=cpus, include_dashboard=False, logging_level="ERROR")
    there = ray.cluster_resources().get("GPU", 0)
    if workers * num_gpus > there:
        ray.shutdown()
        raise UserError(
            f"--workers {workers} with --num_gpus {num_gpus:g} each need more than the {there:g} GPUs of this "
            "machine; take fewer, or set RAY_ADDRESS to a cluster's"
        )


def invert_manifest(
    manifest: Path,
    out: Path,
    *,
    pretrained: str = "farmyard",
    precision: str = "32-true",
    workers: int = 1,
    num_gpus: float = 0,
    settings: dict[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Inverts the pictures of a metadata.jsonl or .csv; the results, one row for each picture, in the manifest's order.

    Raises:
        UserError: The manifest, the model or a setting cannot be used, or Ray lost the workers.
    """
    check(pretrained, workers, num_gpus, settings or {})
    rows, problems = read_metadata(manifest.absolute())  # a worker's working folder is another
    names = unique_names([row.path for row in rows if row.path])
    items = [
        {"path": str(row.path), "name": names[row.path], "prompt": row.prompt or ""}
        for row in rows
        if row.path
    ]
    given = {
        "out": str(out.absolute()),
        "pretrained": str(Path(pretrained).absolute()) if Path(pretrained).is_dir() else pretrained,
        "precision": precision,
        "device": "cuda" if num_gpus else "cpu",
        "settings": settings or {},
    }
    found = {row["name"]: row for row in (run(items, given, workers, num_gpus) if items else [])}
    broken = [
        {"name": place, "folder": "", "psnr": math.nan, "seconds": 0.0, "reason": why}
        for place, why in problems
    ]
    return [found[item["name"]] for item in items] + broken


def check(pretrained: str, workers: int, num_gpus: float, settings: dict[str, Any]) -> None:
    """Refuses before Ray starts what would fail in every worker.

    Raises:
        UserError: With what to type instead.
    """
    if workers < 1 or num_gpus < 0:
        raise UserError(
            f"--workers {workers} --num_gpus {num_gpus:g} leave nobody to work; use 1 and 0 or more"
        )
    method_of(settings)
    if pretrained == "farmyard" or Path(pretrained).is_dir():  # what a hub has, the workers fetch
        check_model(pretrained)
    if find_spec("ray") is None:
        raise UserError("this example needs Ray; pip install 'nulltext[ray]'")


def run(
    items: list[dict[str, str]], given: dict[str, Any], workers: int, num_gpus: float
) -> Iterable[dict[str, Any]]:
    """The results of all rows, as they come.

    The rows are blocks from the start: a ``repartition`` would be tasks of its own, which wait for ever where the
    workers hold every CPU.

    Raises:
        UserError: A worker could not start, or Ray is gone.
    """
    import ray

    start_ray(workers, num_gpus)
    blocks = max(BLOCKS_FOR_WORKER * workers, len(items) // PICTURES_IN_BLOCK)
    data = ray.data.from_items(items, override_num_blocks=min(len(items), blocks))
    compute = ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2)
    results = data.map_batches(
        Inverter,
        fn_constructor_kwargs=given,
        batch_size=1,
        compute=compute,
        num_cpus=1,
        num_gpus=num_gpus or None,
    )
    try:
        yield from results.iter_rows()
    except ray.exceptions.RayError as error:
        reason = [line.strip() for line in str(error).splitlines() if line.strip()][-1]
        raise UserError(f"Ray gave up: {reason[:300]}; the same command continues") from error


class Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        """Raises it as what a person reads.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{message}; --help lists the options")


def mapping(text: str) -> dict[str, Any]:
    """A JSON object of the command line."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def read_words(args: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(description="Null-text inversion of a manifest's pictures on a Ray cluster.")
    parser.add_argument(
        "manifest", type=Path, help="metadata.jsonl or metadata.csv with file_name and prompt"
    )
    parser.add_argument("--out", type=Path, default=Path("inversions"), help="folder that all workers see")
    parser.add_argument("--pretrained", default="farmyard", help="farmyard, a diffusers folder, or a hub id")
    parser.add_argument(
        "--precision", default="32-true", choices=("32-true", "bf16-mixed", "16-mixed"), help="of the network"
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that each hold the model")
    parser.add_argument("--num_gpus", type=float, default=0, help="GPUs for each of them")
    parser.add_argument("--settings", type=mapping, default={}, help="such as '{\"steps\": 50}'")
    return parser.parse_args(args)


def main(args: list[str] | None = None) -> int:
    """Runs it; 0, 1 where a picture could not be used, 2 where the run could not, 130 where it was stopped."""
    try:
        words = read_words(args)
        rows = invert_manifest(**vars(words))
        text = "".join(
            json.dumps({**row, "psnr": row["psnr"] if math.isfinite(row["psnr"]) else None}) + "\n"
            for row in rows
        )
        write_text(words.out / "results.jsonl", text)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command continues", file=sys.stderr)
        return 130
    for row in rows:
        if row["reason"]:
            print(f"{row['name']}: {row['reason']}")
    print(f"{sum(not row['reason'] for row in rows)} of {len(rows)} pictures are in {words.out}")
    return int(any(row["reason"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
