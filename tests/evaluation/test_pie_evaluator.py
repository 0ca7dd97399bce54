"""PIE-Bench's own evaluator, written again from its description, and ours: the same figures of the same pictures.

Its rules: pictures of 512 x 512 as 8 bits over 255; the edited one is the rightmost square of a strip; the mask's runs
are row-major, cut at the end, with the outermost rows and columns edited; both pictures times (1 - mask); torchmetrics'
PSNR, MSE and SSIM over the whole of it with a range of 1; "nan" where nothing is background, left out of the means.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure
from torchmetrics.regression import MeanSquaredError

from nulltext.evaluation import DataOptions, Settings, evaluate
from nulltext.metrics import MetricOptions

SIDE, PICTURES = 512, 20
NAMES = {"psnr": "background_psnr", "mse": "background_mse", "ssim": "background_ssim"}


def their_mask(runs: list[int]) -> np.ndarray:
    flat = np.zeros(SIDE * SIDE, np.float32)
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        for k in range(length):
            if start + k < len(flat):
                flat[start + k] = 1
    mask = flat.reshape(SIDE, SIDE)
    mask[0, :] = mask[-1, :] = 1
    mask[:, 0] = mask[:, -1] = 1
    return mask[:, :, None].repeat(3, 2)


def their_figures(source: Path, strip: Path, runs: list[int]) -> dict[str, float]:
    mask = their_mask(runs)
    if (1 - mask).sum() == 0:
        return dict.fromkeys(NAMES, float("nan"))
    edited = Image.open(strip)
    edited = edited.crop((edited.size[0] - SIDE, edited.size[1] - SIDE, edited.size[0], edited.size[1]))
    pair = []
    for image in (edited, Image.open(source)):
        pixels = np.array(image).astype(np.float32) / 255 * (1 - mask)
        pair.append(torch.tensor(pixels).permute(2, 0, 1).unsqueeze(0))
    calculators: dict[str, Any] = {
        "psnr": PeakSignalNoiseRatio(data_range=1.0),
        "mse": MeanSquaredError(),
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
    }
    return {
        name: float(calculator(*(x.contiguous() for x in pair))) for name, calculator in calculators.items()
    }


def drawn(seed: int) -> Image.Image:
    """A picture of shapes, with grain."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (SIDE, SIDE), tuple(map(int, random.integers(0, 256, 3))))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        left, top, width, height = map(int, random.integers(0, 400, 4))
        pen.ellipse((left, top, left + width, top + height), tuple(map(int, random.integers(0, 256, 3))))
    grain = random.normal(0, 6, (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pie(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, list[int]]]:
    """The benchmark, the strips of a method, and the mask of each picture."""
    folder, output = tmp_path_factory.mktemp("pie"), tmp_path_factory.mktemp("output") / "ddim+p2p"
    random, mapping = np.random.default_rng(0), {}
    for k in range(PICTURES):
        name, source = f"1_change_object_80/{k:012d}", drawn(k)
        starts = np.sort(random.choice(SIDE * SIDE - 2000, 200, replace=False))
        runs = [int(n) for start in starts for n in (start, random.integers(1, 1500))]
        runs = {0: [0, SIDE * SIDE], 1: [], 2: [SIDE * SIDE - 5, 10**6]}.get(k, runs)
        kind = "jpg" if k % 2 else "png"
        for place in (folder / "annotation_images", output / "annotation_images"):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
        source.save(folder / "annotation_images" / f"{name}.{kind}")
        strip = Image.new("RGB", (4 * SIDE, SIDE), "white")
        strip.paste(Image.blend(source, drawn(100 + k), 0.02 * k), (3 * SIDE, 0))
        strip.save(output / "annotation_images" / f"{name}.{kind}")
        mapping[f"{k:012d}"] = {
            "image_path": f"{name}.{kind}",
            "original_prompt": "a [round] thing",
            "editing_prompt": "a [square] thing",
            "editing_type_id": "1",
            "blended_word": "thing thing",
            "mask": runs,
        }
    (folder / "mapping_file.json").write_text(json.dumps(mapping))
    return folder, output, {name: entry["mask"] for name, entry in mapping.items()}


def test_both_evaluators_say_the_same(pie: tuple[Path, Path, dict[str, list[int]]], tmp_path: Path) -> None:
    folder, output, masks = pie
    results, _ = evaluate(
        Settings(
            methods={},
            data=DataOptions("pie_bench", folder),
            finished={"p2p": output},
            metrics=MetricOptions(clip=None),
            output=tmp_path,
        )
    )
    assert results.protocol["side"] == SIDE and results.protocol["edits"] == PICTURES
    assert results.protocol["prompts"] == "without their brackets" and not results.problems
    theirs = {}
    for row in results.rows:
        (source,) = (folder / "annotation_images").rglob(f"{row.picture}.*")
        (strip,) = output.rglob(f"{row.picture}.*")
        theirs[row.picture] = their_figures(source, strip, masks[row.picture])
        for name, column in NAMES.items():
            assert row.scores[column] == pytest.approx(theirs[row.picture][name], abs=1e-4, nan_ok=True), row
    for name, column in (
        (name, column) for name in NAMES for column in results.columns if column.name == NAMES[name]
    ):
        values = np.array([figures[name] for figures in theirs.values()])
        summary = results.summary("p2p", "finished", column)
        assert (summary.n, summary.nan) == (PICTURES - 1, 1)
        assert summary.mean == pytest.approx(np.nanmean(values), abs=1e-4)
