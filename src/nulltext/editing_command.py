"""`python main.py edit --inversion RUN --prompt "..."`: edits beside their inversion."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from nulltext import __version__
from nulltext.artifact import Inversion
from nulltext.backbone import Backbone
from nulltext.editing import Edited, EditResult, Method, edit
from nulltext.editing_figures import grid, heat_over, strip
from nulltext.editing_options import Edit, Kind, Null
from nulltext.errors import UserError
from nulltext.files import write_atomically
from nulltext.parsing import run_function
from nulltext.pictures import to_image, to_pixels

FILE = "inversion.safetensors"
REPEATED = ("--prompt", "--attention")
"""Options that may be given several times."""
SWEPT = ("cross_replace", "self_replace", "guidance_scale", "threshold", "detail_steps")
"""Options that take several values with commas between: all combinations are made."""


@dataclass(frozen=True)
class Job:
    """One inverted picture and the edits that are asked of it."""

    path: Path  # of inversion.safetensors
    edits: list[Edit]
    swept: dict[
        str, tuple[float, ...]
    ]  # option: its values; the edits are all combinations, the last fastest

    @property
    def folder(self) -> Path:
        """Where the edits go."""
        return self.path.parent / "edits"


def edit_command(
    inversion: Path | None = None,
    prompt: list[str] | None = None,
    edits: Path | None = None,
    kind: Kind = "auto",
    cross_replace: float | str | None = None,
    self_replace: float | str | None = None,
    equalizer: dict[str, float] | str | None = None,
    local_blend: list[str] | str | None = "auto",
    mask: Path | None = None,
    threshold: float | str | None = None,
    max_pool: int = 3,
    start: float = 0.0,
    keep_pixels: bool = True,
    guidance_scale: float | str | None = None,
    null: Null = "auto",
    detail_steps: int | str | None = None,
    seed: int | None = None,
    compat: bool = False,
    method: Method = "null_text",
    attention: list[str] | None = None,
    name: str | None = None,
    model: str | None = None,
    precision: str = "32-true",
    device: str = "auto",
    batch_size: int = 8,
    tensorboard: bool = False,
) -> int:
    """Changes an inverted picture with words; nothing is optimised again.

    Args:
        inversion: A run's folder (lightning_logs/version_0), a picture's folder in it, or an inversion.safetensors.
        prompt: What the picture is to show; may be given many times.
        edits: A YAML of edits: a list of {prompt, kind, ...}, or {picture, edits: [...]}, or a list of these.
        kind: plain (no attention control), replace (words swapped one for one), refine (words added), reweight (with
            --equalizer), or auto: replace where the prompts have equally many words, refine otherwise.
        cross_replace: Share of the steps that take the source's cross-attention; words apart as default:0.8,hat:0.4;
            by default 0.4, for kind auto under a mask what suits the model (farmyard 0, others 0.4).
        self_replace: Share of the steps that take the source's self-attention, which holds the layout; as above.
        equalizer: Words made louder or softer: hat:2.0,snow:-1.
        local_blend: Where the edit may act: auto (where the prompts differ to the model), words with commas between
            (where they are looked at), both, or none for everywhere.
        mask: A picture, white where the edit may act.
        threshold: How different a place must be to be edited, 0 to 1; found by itself when not given.
        max_pool: By how much the mask grows: 1 not at all, 3 one latent pixel.
        start: Share of the steps after which the picture is kept outside the mask.
        keep_pixels: Under a mask the picture's own pixels stay wherever the edit changes nothing to see.
        guidance_scale: Weight w of the prompt; by default what suits the model under a mask (farmyard 1.35, others
            3; where that shows nothing, 3 or 7.5), the inversion's own without.
        null: The null text of the edit: learned, empty, or auto: empty under a mask, learned without.
        detail_steps: Steps of a plain DDIM inversion whose noise gives the edit its fine detail, 0 none; by default
            what suits the model (farmyard 8, others 0).
        seed: Draws other noise inside the mask: another hat on the same head.
        compat: Copy the reference code where its errors change the result.
        method: How the source is held: null_text, ddim, negative_prompt or direct.
        attention: A word whose attention is drawn over the picture; may be given many times.
        name: Names the files; made from the prompt by default. Nothing is overwritten: the next is name-2.
        model: The model, where it does not lie any more where the inversion says.
        precision: 32-true, bf16-mixed or 16-mixed.
        device: cpu, cuda, mps; auto takes the first GPU there is.
        batch_size: Edits computed at a time.
        tensorboard: Also shows the edits in TensorBoard.

    Raises:
        UserError: No such inversion, no prompt, options that make no sense.
    """
    options = {
        "kind": kind,
        "cross_replace": cross_replace,
        "self_replace": self_replace,
        "equalizer": equalizer,
        "local_blend": local_blend,
        "mask": mask,
        "threshold": threshold,
        "max_pool": max_pool,
        "start": start,
        "keep_pixels": keep_pixels,
        "guidance_scale": guidance_scale,
        "null": null,
        "detail_steps": detail_steps,
        "seed": seed,
        "name": name,
        "compat": compat,
    }
    jobs = find_jobs(inversion, prompt or [], edits, options)
    inversions = [Inversion.load(job.path) for job in jobs]
    models = {model or i.model for i in inversions}
    if len(models) > 1:
        raise UserError(
            f"these inversions were made with {' and '.join(sorted(models))}; edit them one by one"
        )
    place = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    backbone = Backbone.from_pretrained(models.pop(), precision=precision, device=place)
    for job, inverted in zip(jobs, inversions, strict=True):
        original = _original(job.path.parent / "original.png", inverted.size)
        edited = edit(
            backbone,
            inverted,
            job.edits,
            method=method,
            original=original,
            attention=attention or (),
            batch_size=batch_size,
        )
        for path, text in write_edits(
            job, inverted, edited, original, {"method": method}, tensorboard=tensorboard
        ):
            print(f"{path}  {text}")
    return 0


def find_jobs(
    inversion: Path | None, prompts: Sequence[str], edits: Path | None, options: Mapping[str, Any]
) -> list[Job]:
    """What is asked: the inversions, and the edits of each.

    Raises:
        UserError: Nothing to edit, no edit, or options that make no sense.
    """
    groups: list[tuple[str | None, list[Mapping[str, Any]]]] = []
    if prompts:
        groups.append((None, [{"prompt": prompt} for prompt in prompts]))
    if edits is not None:
        groups += read_edits(edits)
    if not groups:
        raise UserError("there is no edit to make; give --prompt 'a photo of ...' or --edits edits.yaml")
    if inversion is None:
        raise UserError(
            "there is no picture to edit; give --inversion lightning_logs/version_0, a run made by fit"
        )
    jobs = []
    for picture, wanted in groups:
        path = find_inversion(inversion / picture if picture else inversion)
        made = [edits_of({**options, **one}) for one in wanted]
        swept = made[0][1]
        if any(other != swept for _, other in made):
            raise UserError("a sweep has the same values for all its edits; give them on the command line")
        jobs.append(Job(path, [e for some, _ in made for e in some], swept))
    return jobs


def find_inversion(place: Path) -> Path:
    """The ``inversion.safetensors`` that a path means.

    Raises:
        UserError: There is none, or several.
    """
    if place.is_file() or place.suffix == ".safetensors":
        return place
    if (place / FILE).is_file():
        return place / FILE
    found = sorted(place.glob(f"*/{FILE}"))
    if len(found) > 1:
        names = ", ".join(str(path.parent) for path in found[:5]) + (", ..." if len(found) > 5 else "")
        raise UserError(f"{place} has {len(found)} inverted pictures; give one of them: --inversion {names}")
    if not found:
        raise UserError(
            f"there is no inversion in {place}; make one: python main.py fit --data.image PICTURE"
        )
    return found[0]


def read_edits(path: Path) -> list[tuple[str | None, list[Mapping[str, Any]]]]:
    """The edits of a YAML file, by picture; None where it names none.

    Raises:
        UserError: It cannot be read, or is not made as it should be.
    """
    import yaml

    example = "write '- prompt: a photo of a horse' lines, or 'picture: sheep' and below it 'edits:'"
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read the edits {path}: {str(error).splitlines()[0]}; {example}") from None
    entries = content if isinstance(content, list) else [content]
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} holds no edits; {example}")
    grouped = [entry for entry in entries if "edits" in entry]
    if not grouped:
        return [(None, entries)]
    for entry in entries:
        listed = entry.get("edits")
        if set(entry) - {"picture", "edits"} or not isinstance(listed, list) or not listed:
            raise UserError(
                f"{path}: an entry has something else than picture and edits: {sorted(entry)}; {example}"
            )
        if not all(isinstance(one, dict) for one in listed):
            raise UserError(f"{path}: the edits of {entry.get('picture')} are no list of options; {example}")
    return [(entry.get("picture"), entry["edits"]) for entry in entries]


def edits_of(options: Mapping[str, Any]) -> tuple[list[Edit], dict[str, tuple[float, ...]]]:
    """The edit that options mean, or all combinations where some have several values.

    Args:
        options: As on the command line or in YAML; None stands for the default.

    Returns:
        The edits, the last option's values running fastest, and the options of several values.
    """
    given = {
        key: _value(key, value) for key, value in options.items() if value is not None or key == "local_blend"
    }
    swept = {key: value for key, value in given.items() if key in SWEPT and isinstance(value, tuple)}
    if len(swept) > 2:
        raise UserError(f"{', '.join(swept)} have several values; a sweep runs over two options at most")
    if any(len(values) > 20 for values in swept.values()):
        raise UserError("a sweep takes at most 20 values of one option")
    combinations = itertools.product(*swept.values())
    return [
        Edit.from_mapping({**given, **dict(zip(swept, values, strict=True))}) for values in combinations
    ], swept


def _value(key: str, value: Any) -> Any:
    """The value of an option as ``Edit`` takes it."""
    if key == "local_blend":
        return None if value is None or value in ("none", "") else value
    if not isinstance(value, str) or key not in (*SWEPT, "equalizer"):
        return value
    parts = [part.strip() for part in value.split(",") if part.strip()]
    if key == "equalizer" or any(":" in part for part in parts):
        return dict(_word_and_number(key, part) for part in parts)
    numbers = tuple(_number(key, part) for part in parts)
    return numbers[0] if len(numbers) == 1 else numbers


def _word_and_number(key: str, part: str) -> tuple[str, float]:
    word, colon, number = part.rpartition(":")
    if not colon:
        raise UserError(f"--{key} {part!r} has no number; write the word, a colon and the number: hat:2.0")
    return word.strip(), _number(key, number)


def _number(key: str, text: str) -> float:
    whole = key == "detail_steps"
    try:
        return int(text) if whole else float(text)
    except ValueError:
        said, one, several = ("whole number", "10", "0,5,10") if whole else ("number", "0.4", "0.2,0.4")
        raise UserError(
            f"--{key} {text!r} is no {said}; write {one}, or several with commas: {several}"
        ) from None


def _original(path: Path, size: tuple[int, int]) -> Tensor | None:
    """The picture that was inverted (3, H, W), where it lies beside its inversion in that size."""
    try:
        with Image.open(path) as image:
            return to_pixels(image) if (image.height, image.width) == size else None
    except (OSError, ValueError):
        return None


def write_edits(
    job: Job,
    inversion: Inversion,
    edited: Edited,
    original: Tensor | None,
    settings: Mapping[str, Any],
    *,
    tensorboard: bool = False,
) -> list[tuple[Path, str]]:
    """Writes pictures, masks, attention, settings and a strip (or a sweep's grid); overwrites nothing.

    Returns:
        The files, each with what it shows.
    """
    shown: list[tuple[Path, str]] = []
    for result in edited.results:
        name = free_name(job.folder, _name(result.edit, job.swept))
        shown.append((_save(to_image(result.picture), job.folder / f"{name}.png"), result.edit.prompt))
        for word, attention in result.attention.items():
            path = job.folder / f"{name}-attention-{slug(word)}.png"
            shown.append((_save(heat_over(result.picture, attention), path), f"where {word!r} is looked at"))
        if result.mask is not None:
            mask = Image.fromarray((result.mask * 255).round().byte().numpy())
            _save(
                mask.resize(inversion.size[::-1], Image.Resampling.NEAREST), job.folder / f"{name}-mask.png"
            )
        facts = {**_facts(result, inversion, job), **settings}
        _write(json.dumps(facts, indent=2) + "\n", job.folder / f"{name}.json")
    for sheet, label in _sheets(job, inversion, edited, original):
        path = job.folder / f"{free_name(job.folder, f'{_base(job.edits[0])}-{label}')}.png"
        shown.append((_save(sheet, path), f"all of them: {label}"))
        if tensorboard:
            _to_tensorboard(job.folder, path.stem, sheet)
    return shown


def _sheets(
    job: Job, inversion: Inversion, edited: Edited, original: Tensor | None
) -> Iterable[tuple[Image.Image, str]]:
    """The strip of all edits; of a sweep, a grid for each prompt."""
    results = edited.results
    if not job.swept:
        first = [("original", inversion.prompt, to_image(original))] if original is not None else []
        first.append(("reconstruction", "" if first else inversion.prompt, to_image(edited.reconstruction)))
        edits = [(_title(r.edit), r.edit.prompt, to_image(r.picture)) for r in results]
        yield strip([*first, *edits]), "strip"
        return
    (down, rows), *rest = job.swept.items()
    across, columns = rest[0] if rest else ("", [])
    size = len(rows) * max(1, len(columns))
    for k in range(0, len(results), size):
        pictures = [to_image(r.picture) for r in results[k : k + size]]
        labels = [f"{across} {value:g}" for value in columns] or [""]
        yield grid(results[k].edit.prompt, [f"{down} {value:g}" for value in rows], labels, pictures), "sweep"


def _title(edit: Edit) -> str:
    return f"{edit.kind}, w {edit.guidance_scale:g}"


def _facts(result: EditResult, inversion: Inversion, job: Job) -> dict[str, Any]:
    """The settings that an edit was made with."""
    facts = {f.name: getattr(result.edit, f.name) for f in dataclasses.fields(Edit)}
    facts["mask"] = None if facts["mask"] is None else str(facts["mask"])
    return {
        **facts,
        "masked_share": None if result.mask is None else round(float(result.mask.mean()), 4),
        "inversion": str(job.path),
        "source_prompt": inversion.prompt,
        "model": inversion.model,
        "fingerprint": inversion.fingerprint,
        "steps": inversion.steps,
        "nulltext": __version__,
    }


def _name(edit: Edit, swept: Mapping[str, Any]) -> str:
    values = "".join(f"-{option}-{getattr(edit, option):g}" for option in swept)
    return _base(edit) + values


def _base(edit: Edit) -> str:
    return slug(edit.name or edit.prompt)


def slug(text: str) -> str:
    """Words as a file's name: letters, digits and dashes, at most 80."""
    return re.sub(r"[^\w]+", "-", text.lower()).strip("-")[:80].strip("-") or "edit"


def free_name(folder: Path, name: str) -> str:
    """The name, or the first of name-2, name-3 ... that no file of the folder has."""
    names = itertools.chain([name], (f"{name}-{k}" for k in itertools.count(2)))
    return next(
        n for n in names if not (folder / f"{n}.png").exists() and not (folder / f"{n}.json").exists()
    )


def _save(image: Image.Image, path: Path) -> Path:
    write_atomically(path, lambda p: image.save(p, "PNG"))
    return path


def _write(text: str, path: Path) -> None:
    write_atomically(path, lambda p: p.write_text(text, encoding="utf-8"))


def _to_tensorboard(folder: Path, name: str, sheet: Image.Image) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        writer.add_image(f"edits/{name}", (to_pixels(sheet) + 1) / 2)


def main(argv: Sequence[str]) -> int:
    """Runs the ``edit`` verb.

    Args:
        argv: The words after ``edit``.

    Returns:
        0.

    Raises:
        UserError: What was asked cannot be done.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: print(f"nulltext: note: {message}")
        words = list(argv)
        for option in REPEATED:
            words = _gathered(words, option)
        return run_function(edit_command, words, prog="main.py edit")


def _gathered(words: Sequence[str], option: str) -> list[str]:
    """Several uses of an option as one with a list."""
    values, others, rest = [], [], list(words)
    while rest:
        word = rest.pop(0)
        if word == option:
            if not rest:
                raise UserError(f"{option} needs a value, such as {option} 'a photo of a horse'")
            values.append(rest.pop(0))
        elif word.startswith(f"{option}="):
            values.append(word.partition("=")[2])
        else:
            others.append(word)
    return [*others, f"{option}={json.dumps(values)}"] if values else others
