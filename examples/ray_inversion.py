r"""Inverts the pictures of a manifest on a Ray cluster, beyond what one machine can.

    pip install -e '.[ray]'
    python examples/ray_inversion.py farm/metadata.jsonl --out inversions --workers 2
    python examples/ray_inversion.py farm/metadata.jsonl --workers 8 --num_gpus 1 --precision bf16-mixed \
        --pretrained stable-diffusion-v1-5/stable-diffusion-v1-5

Each worker holds the model once and inverts one picture after another; nothing crosses between them but the manifest's
rows. What is in the output folder already, by content and settings, is not done again, so the same command goes on
where a cluster was taken away. A picture that cannot be used becomes a row with its reason.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nulltext.backbone import Backbone
from nulltext.data import unique_names
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.finished import is_finished, will_say
from nulltext.inversion import InversionSettings, invert
from nulltext.pictures import read_picture
from nulltext.prompts import read_metadata


class Inverter:
    """What a worker holds: the model. Called with a batch of the manifest's rows.

    Args:
        out: The folder to write to, which all workers see.
        pretrained: The model.
        precision: Of its UNet.
        device: cpu or cuda.
        settings: The choices of the inversion, those that differ from the defaults.
    """

    def __init__(
        self, out: str, pretrained: str, precision: str, device: str, settings: dict[str, Any]
    ) -> None:
        self.out = Path(out)
        self.backbone = Backbone.from_pretrained(pretrained, precision=precision, device=device)
        self.settings = InversionSettings(**settings)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Inverts each row (path, name, prompt); gives name, psnr in dB, seconds and what went wrong."""
        rows = [self.row(*row) for row in zip(batch["path"], batch["name"], batch["prompt"], strict=True)]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def row(self, path: str, name: str, prompt: str) -> dict[str, Any]:
        """One picture, as a row of the results."""
        started, psnr, reason = time.perf_counter(), float("nan"), ""
        try:
            psnr = self.invert(Path(path), self.out / name / "inversion.safetensors", prompt)
        except UserError as error:
            reason = str(error)
        return {"name": name, "psnr": psnr, "seconds": time.perf_counter() - started, "reason": reason}

    def invert(self, path: Path, artifact: Path, prompt: str) -> float:
        """Writes the artifact unless it is there; its fidelity in dB, nan where it was there."""
        side, multiple = self.backbone.default_size, self.backbone.vae_scale_factor
        picture = read_picture(path, prompt=prompt or None, size=side, multiple=multiple)
        facts = will_say(
            self.backbone, self.settings, picture.sha256, picture.prompt, picture.size, picture.crop
        )
        if is_finished(artifact, facts):
            return float("nan")
        inversion = invert(self.backbone, picture, settings=self.settings)
        inversion.save(artifact)
        return inversion.psnr


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
    """Inverts the pictures of a metadata.jsonl or .csv; the results, a row a picture, in the manifest's order.

    Raises:
        UserError: The manifest cannot be read.
    """
    import ray

    rows, problems = read_metadata(manifest)
    names = unique_names([row.path for row in rows if row.path])
    items = [
        {"path": str(row.path), "name": names[row.path], "prompt": row.prompt or ""}
        for row in rows
        if row.path
    ]
    given = {
        "out": str(out.resolve()),
        "pretrained": pretrained,
        "precision": precision,
        "device": "cuda" if num_gpus else "cpu",
        "settings": settings or {},
    }
    results: Iterable[dict[str, Any]] = (
        ray.data.from_items(items)
        .repartition(max(workers, min(len(items), 8 * workers)))
        .map_batches(
            Inverter,
            fn_constructor_kwargs=given,
            batch_size=1,
            concurrency=workers,
            num_cpus=1,
            num_gpus=num_gpus or None,
        )
        .iter_rows()
    )
    found = {row["name"]: row for row in results}
    broken = [{"name": place, "psnr": float("nan"), "seconds": 0.0, "reason": why} for place, why in problems]
    return [found[item["name"]] for item in items if item["name"] in found] + broken


def main() -> int:
    """Reads the command line; 0, or 1 where a picture could not be used."""
    parser = argparse.ArgumentParser(
        description="Null-text inversion of a manifest's pictures on a Ray cluster."
    )
    parser.add_argument(
        "manifest", type=Path, help="metadata.jsonl or metadata.csv with file_name and prompt"
    )
    parser.add_argument("--out", type=Path, default=Path("inversions"), help="folder that all workers see")
    parser.add_argument("--pretrained", default="farmyard", help="farmyard, a diffusers folder, or a hub id")
    parser.add_argument("--precision", default="32-true", help="32-true, bf16-mixed or 16-mixed")
    parser.add_argument("--workers", type=int, default=1, help="processes that each hold the model")
    parser.add_argument("--num_gpus", type=float, default=0, help="GPUs for each of them")
    parser.add_argument("--settings", type=json.loads, default={}, help="such as '{\"steps\": 50}'")
    words = parser.parse_args()
    try:
        rows = invert_manifest(**vars(words))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write_atomically(
        words.out / "results.jsonl", lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    for row in rows:
        if row["reason"]:
            print(f"{row['name']}: {row['reason']}")
    print(f"{sum(not row['reason'] for row in rows)} of {len(rows)} pictures are in {words.out}")
    return int(any(row["reason"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
