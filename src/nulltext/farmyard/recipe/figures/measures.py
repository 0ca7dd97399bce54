"""The figures of the model card, section by section, on scenes that no training has seen."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from nulltext.farmyard.recipe.figures.pictures import PHOTOGRAPHS, held_out, photographs, psnr, save_grid
from nulltext.farmyard.recipe.figures.reading import Reader
from nulltext.farmyard.recipe.figures.subject import Subject
from nulltext.farmyard.world.scene import PLACES, Scene, replace

STEPS = 50
GUIDANCE = 7.5
SCALES = (1.5, 2.0, 3.0, 5.0)
"""Guidance scales that are tried beside `GUIDANCE`."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str = ""
    bar: str = ""
    """The target, such as ">= 29"; empty for none."""

    @property
    def met(self) -> bool:
        """Whether the bar is met; a figure without one always is."""
        relation, _, number = self.bar.partition(" ")
        return not number or (
            self.value >= float(number) if relation == ">=" else self.value <= float(number)
        )


SIZE_BAR, VAE_BARS, FORWARD_BAR = "<= 60", (">= 31", ">= 0.95", ">= 24"), "<= 40"
READ_BARS = {"animal": ">= 0.97"} | dict.fromkeys(("colour", "hat", "place", "weather", "object"), ">= 0.92")


@dataclass(frozen=True)
class Run:
    """A model, and how it is measured."""

    subject: Subject
    out: Path
    quick: bool

    def count(self, n: int) -> int:
        """How many pictures a section takes: all, or about a tenth, at least 8."""
        return max(8, n // 10) if self.quick else n


def measure_size(run: Run) -> list[Figure]:
    """All files of the folder together."""
    total = sum(path.stat().st_size for path in run.subject.folder.rglob("*") if path.is_file())
    parameters = sum(p.numel() for p in run.subject.network.parameters())
    return [
        Figure("all files", total / 2**20, "MiB", SIZE_BAR),
        Figure("network parameters", parameters / 1e6, "M"),
    ]


@torch.no_grad()
def measure_vae(run: Run) -> list[Figure]:
    """What a picture loses on its way through the latents."""
    subject, bars = run.subject, VAE_BARS
    _, pixels = held_out(subject.world, run.count(256), first=0)
    back = torch.cat([subject.decode(subject.encode(part)) for part in pixels.split(32)])
    photos = photographs(subject.world.size)
    photos_back = subject.decode(subject.encode(photos))
    save_grid(torch.cat([pixels[:8], back[:8], photos, photos_back]), 8, run.out / "vae.png", scale=2)
    values = psnr(photos_back, photos).tolist()
    ssim = structural_similarity_index_measure((back + 1) / 2, (pixels + 1) / 2, data_range=1.0)
    assert isinstance(ssim, Tensor)
    return [
        Figure("VAE, scenes: PSNR", float(psnr(back, pixels).mean()), "dB", bars[0]),
        Figure("VAE, scenes: SSIM", float(ssim), "", bars[1]),
        Figure("VAE, latents: standard deviation", float(subject.encode(pixels[:64]).std())),
        Figure("VAE, photographs: mean PSNR", sum(values) / len(values), "dB", bars[2]),
        *(Figure(f"VAE, {n}: PSNR", v, "dB") for n, v in zip(PHOTOGRAPHS, values, strict=True)),
    ]


def measure_clip(run: Run) -> list[Figure]:
    """Whether the evaluator matches drawn scenes and captions, and reads what they show."""
    world, judge = run.subject.world, run.subject.judge
    scenes, pixels = held_out(world, run.count(512), first=1000)
    image = judge.image_features(pixels)
    captions = [world.caption(scene) for scene in scenes]
    shares_matched = matched(image, judge.text_features(captions), captions)
    ways = ("picture to caption", "caption to picture")
    figures = [
        Figure(f"CLIP, of 64: {way}", share, "", ">= 0.95")
        for way, share in zip(ways, shares_matched, strict=True)
    ]
    shares = Reader(world, judge.text_features).accuracy(image, scenes)
    return figures + [
        Figure(f"CLIP, drawn {name}: accuracy", share, "", ">= 0.97") for name, share in shares.items()
    ]


def matched(image: Tensor, text: Tensor, captions: Sequence[str], group: int = 64) -> tuple[float, float]:
    """Share of pictures whose nearest caption in a group is their own, and of captions whose nearest picture is."""
    hits: tuple[list[bool], list[bool]] = [], []
    for start in range(0, len(captions) - len(captions) % group or len(captions), group):
        own = captions[start : start + group]
        similarity = image[start : start + group] @ text[start : start + group].T
        for way, nearest in zip(hits, (similarity.argmax(dim=1), similarity.argmax(dim=0)), strict=True):
            way += [own[j] == own[i] for i, j in enumerate(nearest.tolist())]
    return sum(hits[0]) / len(hits[0]), sum(hits[1]) / len(hits[1])


@torch.no_grad()
def generate(subject: Subject, prompts: Sequence[str], w: float, seed: int, batch: int = 40) -> Tensor:
    """Pictures of prompts, (n, 3, size, size) in [-1, 1], after `STEPS` steps at guidance w."""
    noise = torch.randn(len(prompts), *subject.latent_shape, generator=torch.Generator().manual_seed(seed))
    pictures = []
    for start in range(0, len(prompts), batch):
        z, some = noise[start : start + batch].to(subject.device), prompts[start : start + batch]
        texts = subject.embed([""] * len(some)), subject.embed(some)
        for step in subject.steps(STEPS):
            z = subject.run(z, step, texts, w)
        pictures.append(subject.decode(z))
    return torch.cat(pictures)


def measure_generation(run: Run) -> list[Figure]:
    """Whether the evaluator reads in generated pictures what their prompts say; and two grids to look at."""
    subject, world = run.subject, run.subject.world
    scenes, _ = held_out(world, run.count(200), first=2000)
    reader = Reader(world, subject.judge.text_features)

    def accuracy(w: float, prompts: Sequence[str]) -> dict[str, float]:
        pictures = generate(subject, prompts, w, seed=1)
        if len(prompts) == len(scenes) and w == GUIDANCE:
            save_grid(pictures[: len(pictures) // 8 * 8], 8, run.out / "generated.png")
        return reader.accuracy(subject.judge.image_features(pictures), scenes[: len(prompts)])

    prompts = [world.caption(scene) for scene in scenes]
    some = run.count(80)
    figures = _generated(accuracy(GUIDANCE, prompts), len(scenes), GUIDANCE, READ_BARS)
    if subject.is_flow:
        best = max(SCALES, key=lambda w: sum(accuracy(w, prompts[:some]).values()))
        figures += _generated(accuracy(best, prompts), len(scenes), best, READ_BARS)
    if others := [phrasing for phrasing in world.phrasings[1:] if phrasing.says_all]:
        told = [others[i % len(others)](scene) for i, scene in enumerate(scenes[:some])]
        shares = accuracy(GUIDANCE, told)
        name = f"{some} generated at w = {GUIDANCE:g} from other words, mean of all: CLIP accuracy"
        figures.append(Figure(name, sum(shares.values()) / len(shares)))
    save_grid(generate(subject, grid_prompts(run), GUIDANCE, seed=2), 8, run.out / "grid.png")
    return figures


def _generated(shares: dict[str, float], n: int, w: float, bars: dict[str, str]) -> list[Figure]:
    names = ((name, share, bars.get(name, "")) for name, share in shares.items())
    return [
        Figure(f"{n} generated at w = {w:g}, {name}: CLIP accuracy", s, "", bar) for name, s, bar in names
    ]


def grid_prompts(run: Run) -> list[str]:
    """Eight animals in every place, row by row, each row in another colour, time and weather."""
    world = run.subject.world
    colours, animals = world.choices["colour"], world.choices["animal"][:8]
    times, weathers = world.choices.get("time", ("day",)), world.choices.get("weather", (None,))
    rows = []
    for i, place in enumerate(PLACES):
        changes = {"time": times[i % len(times)], "weather": weathers[i % len(weathers)]}
        rows.append(replace(Scene(place=place), colour=colours[i % len(colours)], **changes))
    return [world.caption(replace(row, animal=animal)) for row in rows for animal in animals]


@torch.no_grad()
def measure_inversion(run: Run) -> list[Figure]:
    """How far plain inversion comes back with and without guidance: the ill that null-text inversion cures."""
    subject, world = run.subject, run.subject.world
    scenes, pixels = held_out(world, run.count(32), first=3000)
    z_0, steps = subject.encode(pixels), subject.steps(STEPS)
    cond, null = subject.embed([world.caption(scene) for scene in scenes]), subject.embed([""] * len(scenes))
    noise = z_0
    for step in reversed(steps):
        noise = subject.run(noise, step.turned(), [cond])
    came_back = {"VAE alone": z_0}
    for w in (1.0, GUIDANCE):
        z = noise
        for step in steps:
            z = subject.run(z, step, [null, cond], w)
        came_back[f"w = {w:g}"] = z
    decoded = {name: subject.decode(z) for name, z in came_back.items()}
    save_grid(torch.cat([pixels[:8], *(d[:8] for d in decoded.values())]), 8, run.out / "inversion.png")
    db = {name: float(psnr(d, pixels).mean()) for name, d in decoded.items()}
    bound, plain, guided = db.values()
    way = "Euler" if subject.is_flow else "DDIM"
    return [
        *(
            Figure(f"{way} inversion of {len(scenes)}, {name}: PSNR", value, "dB")
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
def measure_speed(run: Run) -> list[Figure]:
    """One forward of the network and one guided sample, in fp32 on this machine."""
    subject = run.subject
    z = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(0)).to(subject.device)
    text = subject.embed(["a photo of a white sheep on a green meadow"])
    forward = median_seconds(lambda: subject.ask(z, 500.0, text), 30)
    one = ["a photo of a white sheep"]
    whole = median_seconds(lambda: generate(subject, one, GUIDANCE, seed=0), 1 if run.quick else 3)
    where = f"{torch.get_num_threads()} threads" if subject.device.type == "cpu" else str(subject.device)
    return [
        Figure(f"one forward, {where}", 1000 * forward, "ms", FORWARD_BAR),
        Figure(f"one guided sample of {STEPS} steps, {where}", whole, "s", "<= 5"),
    ]


MEASURES: dict[str, Callable[[Run], list[Figure]]] = {
    "size": measure_size,
    "vae": measure_vae,
    "clip": measure_clip,
    "generation": measure_generation,
    "inversion": measure_inversion,
    "speed": measure_speed,
}
