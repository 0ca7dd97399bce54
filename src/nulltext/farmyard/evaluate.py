"""The figures of the model card, on scenes that no training has seen."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nulltext.backbone import Backbone, TextEmbedding, check_model
from nulltext.farmyard.card import write_card
from nulltext.farmyard.drawing import draw
from nulltext.farmyard.reading import Reader
from nulltext.farmyard.scene import ANIMALS, HELD_OUT_SEEDS, PLACES, Scene, caption, random_scene
from nulltext.files import write_atomically
from nulltext.inversion import sample
from nulltext.metrics import psnr, ssim
from nulltext.metrics.networks import ClipScorer
from nulltext.pivot import ddim_invert

PHOTOGRAPHS = ("cat", "astronaut", "coffee", "rocket")
STEPS = 50
GUIDANCE = 7.5


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    bar: str  # what is asked of it, such as ">= 29"; empty for none

    @property
    def met(self) -> bool:
        """Whether the bar is met; a figure without one always is."""
        relation, _, number = self.bar.partition(" ")
        return not number or (
            self.value >= float(number) if relation == ">=" else self.value <= float(number)
        )


@dataclass(frozen=True)
class Subject:
    """The model under measurement, and where pictures of it go."""

    backbone: Backbone
    scorer: ClipScorer
    folder: Path
    out: Path
    quick: bool

    def count(self, n: int) -> int:
        """How many pictures a section takes: all, or about a tenth, at least 8."""
        return max(8, n // 10) if self.quick else n


def held_out(n: int, first: int = 0) -> tuple[list[Scene], Tensor]:
    """Held-out scenes and their pictures, (n, 3, 64, 64) in [-1, 1]."""
    scenes = [random_scene(seed) for seed in HELD_OUT_SEEDS[first : first + n]]
    return scenes, torch.stack([to_pixels(draw(scene)) for scene in scenes])


def to_pixels(picture: Image.Image) -> Tensor:
    """A picture as (3, H, W) in [-1, 1]."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


def unit(pixels: Tensor) -> Tensor:
    """[-1, 1] to [0, 1]."""
    return (pixels + 1) / 2


def photographs(size: int) -> Tensor:
    """scikit-image's cat, astronaut, coffee and rocket, their middle squares, (4, 3, size, size) in [-1, 1]."""
    from skimage import data

    squares = []
    for name in PHOTOGRAPHS:
        picture = Image.fromarray(getattr(data, name)())
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((left, top, left + side, top + side))
        squares.append(to_pixels(square.resize((size, size), Image.Resampling.LANCZOS)))
    return torch.stack(squares)


def save_grid(pictures: Tensor, columns: int, path: Path, scale: int = 2) -> None:
    """Write pictures (n, 3, H, W) in [-1, 1] row by row into one PNG, enlarged without smoothing."""
    n, _, height, width = pictures.shape
    grid = pictures.unflatten(0, (n // columns, columns)).permute(0, 3, 1, 4, 2)  # (rows, H, columns, W, 3)
    pixels = (
        ((grid.clamp(-1, 1) + 1) * 127.5).round().byte().reshape(n // columns * height, columns * width, 3)
    )
    picture = Image.fromarray(pixels.numpy())
    write_atomically(
        path, picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save
    )


def measure_size(subject: Subject) -> list[Figure]:
    """All files of the folder together."""
    total = sum(path.stat().st_size for path in subject.folder.rglob("*") if path.is_file())
    parameters = sum(p.numel() for p in subject.backbone.unet.parameters())
    return [
        Figure("all files", total / 2**20, "MiB", "<= 30"),
        Figure("UNet parameters", parameters / 1e6, "M", ""),
    ]


@torch.no_grad()
def measure_vae(subject: Subject) -> list[Figure]:
    """What a picture loses on its way through the latents."""
    backbone = subject.backbone
    _, pixels = held_out(subject.count(256))
    back = torch.cat([backbone.decode_latents(backbone.encode_image(part)) for part in pixels.split(32)])
    photos = photographs(backbone.default_size)
    photos_back = backbone.decode_latents(backbone.encode_image(photos))
    rows = torch.cat([pixels[:8], back[:8], photos, photos_back])
    save_grid(rows, 8, subject.out / "vae.png", scale=3)
    latents = backbone.encode_image(pixels[:64])
    figures = [
        Figure("VAE, scenes: PSNR", float(psnr(unit(back), unit(pixels)).mean()), "dB", ">= 29"),
        Figure("VAE, scenes: SSIM", float(ssim(unit(back), unit(pixels)).mean()), "", ">= 0.9"),
        Figure("VAE, latents: standard deviation", float(latents.std()), "", ""),
    ]
    values = psnr(unit(photos_back), unit(photos)).tolist()
    figures.append(Figure("VAE, photographs: mean PSNR", sum(values) / len(values), "dB", ">= 22"))
    return figures + [
        Figure(f"VAE, {n}: PSNR", v, "dB", "") for n, v in zip(PHOTOGRAPHS, values, strict=True)
    ]


def measure_clip(subject: Subject) -> list[Figure]:
    """Whether the evaluator matches drawn scenes and captions, and reads what they show."""
    scenes, pixels = held_out(subject.count(512), first=1000)
    image = subject.scorer.image_features(unit(pixels))
    captions = [caption(scene) for scene in scenes]
    text = subject.scorer.text_features(captions)
    hits: dict[str, list[bool]] = {"picture to caption": [], "caption to picture": []}
    for start in range(0, len(scenes) - len(scenes) % 64 or len(scenes), 64):
        rows = slice(start, start + 64)
        own, similarity = captions[rows], image[rows] @ text[rows].T
        hits["picture to caption"] += [
            own[j] == own[i] for i, j in enumerate(similarity.argmax(dim=1).tolist())
        ]
        hits["caption to picture"] += [
            own[j] == own[i] for i, j in enumerate(similarity.argmax(dim=0).tolist())
        ]
    figures = [Figure(f"CLIP, of 64: {way}", sum(h) / len(h), "", ">= 0.95") for way, h in hits.items()]
    shares = Reader(subject.scorer.text_features).shares_read(image, scenes)
    return figures + [
        Figure(f"CLIP, reads drawn {name}", share, "", ">= 0.97") for name, share in shares.items()
    ]


@torch.no_grad()
def generate(backbone: Backbone, prompts: Sequence[str], w: float, seed: int, batch: int = 40) -> Tensor:
    """Pictures of prompts, (n, 3, 64, 64) in [-1, 1], after `STEPS` DDIM steps at guidance w."""
    side = backbone.default_size // backbone.vae_scale_factor
    noise = torch.randn(len(prompts), 4, side, side, generator=torch.Generator().manual_seed(seed))
    schedule, pictures = backbone.schedule(STEPS), []
    for start in range(0, len(prompts), batch):
        cond = backbone.embed_prompt(prompts[start : start + batch])
        null = backbone.embed_prompt("").expand(len(cond))
        z = sample(backbone, schedule, noise[start : start + batch].to(backbone.device), cond, [null], w)
        pictures.append(backbone.decode_latents(z).cpu())
    return torch.cat(pictures)


def measure_generation(subject: Subject) -> list[Figure]:
    """Whether the evaluator reads in generated pictures what was asked for; and a grid to look at."""
    scenes, _ = held_out(subject.count(200), first=2000)
    pictures = generate(subject.backbone, [caption(scene) for scene in scenes], GUIDANCE, seed=1)
    shares = Reader(subject.scorer.text_features).shares_read(
        subject.scorer.image_features(unit(pictures)), scenes
    )
    bars = {"animal": ">= 0.95", "colour": ">= 0.9", "place": ">= 0.9", "hat": ">= 0.9"}
    save_grid(pictures[: len(pictures) // 8 * 8], 8, subject.out / "generated.png", scale=1)
    colours = ("white", "brown", "orange", "gray", "black")
    world = [Scene(animal=a, place=p, colour=colours[i]) for i, p in enumerate(PLACES) for a in ANIMALS]
    grid = generate(subject.backbone, [caption(scene) for scene in world], GUIDANCE, seed=2)
    save_grid(grid, len(ANIMALS), subject.out / "grid.png")
    return [
        Figure(f"{len(scenes)} generated at w = 7.5, CLIP reads {n}", s, "", bars[n])
        for n, s in shares.items()
    ]


@torch.no_grad()
def measure_inversion(subject: Subject) -> list[Figure]:
    """How far plain DDIM inversion comes back with and without guidance: the ill that null-text inversion cures."""
    backbone = subject.backbone
    scenes, pixels = held_out(subject.count(32), first=3000)
    z_0 = backbone.encode_image(pixels)
    cond = backbone.embed_prompt([caption(scene) for scene in scenes])
    null = backbone.embed_prompt("").expand(len(scenes))
    schedule = backbone.schedule(STEPS)
    z_t = ddim_invert(backbone, schedule, z_0, cond)[0]
    came_back = {"VAE alone": z_0}
    for w in (1.0, GUIDANCE):
        came_back[f"w = {w:g}"] = sample(backbone, schedule, z_t, cond, [null], w)
    decoded = {name: backbone.decode_latents(z) for name, z in came_back.items()}
    save_grid(torch.cat([pixels[:8], *(d[:8] for d in decoded.values())]), 8, subject.out / "inversion.png")
    db = {name: float(psnr(unit(d), unit(pixels)).mean()) for name, d in decoded.items()}
    bound, plain, guided = db.values()
    return [
        *(
            Figure(f"DDIM inversion of {len(scenes)}, {name}: PSNR", value, "dB", "")
            for name, value in db.items()
        ),
        Figure("lost at w = 1", bound - plain, "dB", "<= 1"),
        Figure("lost at w = 7.5", bound - guided, "dB", ">= 5"),
    ]


def median_seconds(work: Callable[[], object], times: int) -> float:
    """The median duration of some runs, after one to warm up."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[times // 2]


@torch.no_grad()
def measure_speed(subject: Subject) -> list[Figure]:
    """One UNet forward and one guided sample, in fp32 on this machine."""
    backbone = subject.backbone
    side = backbone.default_size // backbone.vae_scale_factor
    z = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    text: TextEmbedding = backbone.embed_prompt("a photo of a white sheep on a green meadow")
    forward = median_seconds(lambda: backbone.predict_noise(z, 500, text), 30)
    whole = median_seconds(
        lambda: generate(backbone, ["a photo of a white sheep"], GUIDANCE, seed=0), 1 if subject.quick else 3
    )
    threads = torch.get_num_threads()
    return [
        Figure(f"one UNet forward, {threads} threads", 1000 * forward, "ms", "<= 30"),
        Figure(f"one guided sample of {STEPS} steps, {threads} threads", whole, "s", "<= 5"),
    ]


MEASURES: dict[str, Callable[[Subject], list[Figure]]] = {
    "size": measure_size,
    "vae": measure_vae,
    "clip": measure_clip,
    "generation": measure_generation,
    "inversion": measure_inversion,
    "speed": measure_speed,
}


def evaluate(
    pretrained: str,
    out: Path,
    sections: Sequence[str] = tuple(MEASURES),
    *,
    quick: bool = False,
    card: bool = False,
) -> list[Figure]:
    """Measure a farmyard model and print its figures as a Markdown table.

    Args:
        pretrained: farmyard, or a folder of the same layout.
        out: Where `figures.json` and the pictures to look at go. Figures of other sections there are kept.
        sections: Keys of `MEASURES`.
        quick: Take a tenth of the pictures.
        card: Write the table into the folder's model card, too.

    Returns:
        The figures just measured.

    Raises:
        UserError: There is no such model.
    """
    folder = check_model(pretrained)
    scorer = ClipScorer.from_pretrained(str(folder / "clip"))
    subject = Subject(Backbone.from_pretrained(pretrained), scorer, folder, out, quick)
    figures: list[Figure] = []
    print("| | measured | asked | |\n|---|---|---|---|")
    for section in sections:
        for figure in MEASURES[section](subject):
            figures.append(figure)
            print(line(figure), flush=True)
    kept = _read(out / "figures.json")
    kept.update({figure.name: [figure.value, figure.unit, figure.bar] for figure in figures})
    write_atomically(out / "figures.json", lambda path: _write(path, kept))
    if card:
        write_card(folder, [line(Figure(name, *rest)) for name, rest in kept.items()])
    return figures


def line(figure: Figure) -> str:
    """A figure as a row of the table."""
    digits = 3 if not figure.unit else 2
    asked = figure.bar.replace(">=", "at least").replace("<=", "at most")
    verdict = "" if not figure.bar else "met" if figure.met else "**short**"
    return f"| {figure.name} | {figure.value:.{digits}f} {figure.unit} | {asked} | {verdict} |"


def _read(path: Path) -> dict[str, list[Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, figures: dict[str, list[Any]]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
