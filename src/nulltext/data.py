"""Pictures on their way to the module: found, checked, grouped by size, handed out by the timestep."""

import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nulltext.errors import UserError
from nulltext.finished import finished_names, will_say
from nulltext.memory import free_memory, pictures_together
from nulltext.pictures import (
    MAX_PIXELS,
    SUFFIXES,
    Frame,
    Picture,
    decode,
    no_prompt,
    parse_crop,
    read_picture,
    upright,
)
from nulltext.prompts import METADATA_NAMES, Captioner, Row, find_prompt, read_metadata
from nulltext.runs import run_folder

__all__ = ["Picture", "PictureData", "Timestep", "read_picture"]

RESERVED_NAMES = ("checkpoints", "edits")  # folders of a run that are no picture's


class Timestep:
    """One batch: the pictures of a group at one step of the walk.

    A plain class: Lightning walks through dataclasses, lists and dicts of a batch, and refuses frozen ones.

    Args:
        step: i, 0 the noisiest.
        group: Number of the group, which is the epoch.
        pictures: The pictures of the group, all of one size; the same objects at every step.
    """

    def __init__(self, step: int, group: int, pictures: tuple[Picture, ...]) -> None:
        self.step, self.group, self.pictures = step, group, pictures


@dataclass(frozen=True)
class Source:
    """A picture that was found and can be decoded, without its pixels."""

    path: Path
    name: str
    prompt: str
    size: tuple[int, int]
    """(height, width) in the file, upright."""
    row: Row
    sha256: str
    """Hex digest of the file's bytes."""


class PictureData(LightningDataModule):
    """The pictures to invert, and what they show.

    Args:
        image: A picture, a folder, a glob such as ``'farm/*.jpg'``, several of them, or a metadata.jsonl
            (.csv) with file_name and prompt in each row.
        prompt: What the picture shows. Without it: its row in the metadata file, sheep.txt beside sheep.jpg,
            or the description inside the picture.
        crop: ``center``, ``none`` (the whole picture, its shape kept), or a box ``left,top,right,bottom`` in
            pixels.
        size: Side in pixels, or ``[height, width]``; the model's own by default.
        captioner: A BLIP model, id or folder, that describes the pictures nothing else describes.
        batch_size: Pictures optimised at once, if they have one size; by default 1, 2, 4 or 8, as the free memory
            allows. Only 1 gives the same bits whatever pictures come along.
        max_pixels: Largest width times height that is decoded.
    """

    def __init__(
        self,
        image: list[Path] | Path | None = None,
        prompt: str | None = None,
        crop: str = "center",
        size: int | tuple[int, int] | None = None,
        captioner: str | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        super().__init__()
        self.image = [] if image is None else [image] if isinstance(image, str | Path) else list(image)
        self.prompt = prompt
        self.crop = crop
        self.size = (size[0], size[1]) if isinstance(size, list | tuple) else size
        self.captioner = captioner
        self.batch_size = batch_size
        self.max_pixels = max_pixels
        self.sources: list[Source] = []
        self.groups: list[list[Source]] = []
        self.broken: list[tuple[str, str]] = []
        """Pictures that could not be used, and why; filled when more than one was asked for."""
        self.finished: list[str] = []
        """Names of the pictures that the run folder holds already."""
        self.order: list[str] = []
        """Names of all pictures of the run, of the other ranks too."""

    def setup(self, stage: str) -> None:
        """Finds and checks every picture, before any weights are read.

        Raises:
            UserError: A setting is wrong, there is no picture, or none of them can be used.
        """
        if self.trainer is not None:
            self.trainer.fit_loop.max_epochs = -1  # else Lightning refuses a checkpoint of the second group
        if self.sources:
            return
        self._check_settings()
        rows, problems = find_pictures(self.image)
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self.broken = problems[rank::ranks]
        caption = Captioner(self.captioner) if self.captioner else None
        names = unique_names([row.path for row in rows if row.path])
        self.order = list(names.values())
        for row in rows[rank::ranks]:
            try:
                self.sources.append(self._check(row, names, caption))
            except UserError as error:
                self.broken.append((str(row.path), str(error)))
        if not self.sources and self.broken and ranks == 1:
            self._nothing_left()

    def _nothing_left(self) -> None:
        place, reason = self.broken[0]
        if len(self.broken) == 1:
            raise UserError(reason if place in reason else f"{place}: {reason}")
        raise UserError(f"none of {len(self.broken)} pictures can be used; the first: {reason}")

    def _check_settings(self) -> None:
        if not self.image:
            raise UserError(
                "which picture? give --data.image sheep.jpg (or a folder, a glob, a metadata.jsonl)"
            )
        if self.batch_size is not None and self.batch_size < 1:
            raise UserError(
                f"--data.batch_size {self.batch_size} is too small; use 1 or more, or leave it out"
            )
        if self.max_pixels < 1:
            raise UserError(f"--data.max_pixels {self.max_pixels} admits no picture; use 100000000")
        parse_crop(self.crop)
        if self.size is not None:
            Frame(self.crop, self.size, multiple=1)

    def _check(self, row: Row, names: dict[Path, str], caption: Captioner | None) -> Source:
        """Decodes the picture once to know that it can be, and forgets the pixels."""
        assert row.path is not None
        image, sha256 = decode(row.path, self.max_pixels)
        prompt = find_prompt(row.path, image, self.prompt, row)
        picture = upright(image)
        Frame(self.crop, self.size or 64, multiple=1).target(*picture.size)
        if prompt is None:
            if caption is None:
                raise UserError(no_prompt(row.path))
            prompt = caption(picture)
        if not prompt:
            rank_zero_warn(f"{row.path}: the prompt is empty, so guidance has nothing to guide")
        return Source(row.path, names[row.path], prompt, (picture.height, picture.width), row, sha256)

    def frame(self) -> Frame:
        """The rule of cutting and resizing, with the model's own numbers where the user gave none.

        Raises:
            UserError: The size does not suit the model.
        """
        module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        size = self.size or module.backbone.default_size
        return Frame(self.crop, size, module.backbone.vae_scale_factor)

    def train_dataloader(self) -> "TimestepLoader":
        """Plans the groups, one an epoch, and sets the number of epochs to theirs.

        Called by Lightning when the model and the checkpoint are loaded. The first group of a run that is taken up
        is the checkpoint's; its epoch is the checkpoint's too, so groups are counted from there.
        """
        trainer, module = self.trainer, self.trainer.lightning_module  # type: ignore[union-attr]
        assert trainer is not None
        first = trainer.current_epoch
        self.groups = self._plan(module)
        trainer.fit_loop.max_epochs = first + len(self.groups)
        return TimestepLoader(
            steps=int(module.hparams["steps"]),
            where=lambda: (trainer.current_epoch - first, int(module.cursor)),  # type: ignore[arg-type]
            read=self.pictures,
            gave_up=lambda: bool(module.gave_up),
        )

    def _plan(self, module: Any) -> list[list[Source]]:
        """The groups that are left to do, all of one size each; an unfinished one of a checkpoint first, whole."""
        frame = self.frame()
        fitting = [source for source in self.sources if self._fits(source, frame)]
        wanted = {
            s.name: will_say(
                module.backbone,
                module.settings,
                s.sha256,
                s.prompt,
                frame.target(s.size[1], s.size[0]),
                frame.crop,
                module.make_optimizer,
            )
            for s in fitting
        }
        done, taken = finished_names(run_folder(module.trainer), wanted)
        sources = [
            replace(source, name=f"{source.name}-{source.sha256[:8]}") if source.name in taken else source
            for source in fitting
        ]
        at = module.taken_up or []
        whole = int(module.cursor) == module.settings.steps
        current = [] if whole else [match for identity in at if (match := _match(identity, sources))]
        current = current if len(current) == len(at) else []
        again = {source.path for source in current}
        self.finished = [s.name for s in sources if s.name in done and s.path not in again]
        together = self.batch_size or self._together(module, sources, frame)
        rest = [
            [source for source in group if source.name not in done and source.path not in again]
            for group in group_by_size(sources, frame, together)
        ]
        rest = [group for group in rest if group]
        return [current, *rest] if current or (at and whole) else rest

    def _together(self, module: Any, sources: Sequence[Source], frame: Frame) -> int:
        """As many pictures as the free memory allows; the processes of one machine share its main memory."""
        if len(sources) < 2:
            return 1
        free = free_memory(module.device)
        if module.device.type == "cpu":
            free //= module.trainer.num_devices
        largest = max((frame.target(s.size[1], s.size[0]) for s in sources), key=math.prod)
        return pictures_together(module.backbone, largest, free)

    def _fits(self, source: Source, frame: Frame) -> bool:
        """Whether the picture can be brought to the model's size; the reason is kept where it cannot."""
        try:
            frame.target(source.size[1], source.size[0])
        except UserError as error:
            if len(self.sources) == 1:
                raise
            self.broken.append((str(source.path), str(error)))
            return False
        return True

    def pictures(self, group: int) -> tuple[Picture, ...]:
        """The pictures of a group, with their pixels; those that broke since they were checked are left out."""
        found: list[Picture] = []
        for source in self.groups[group]:
            try:
                found.append(self._read(source))
            except UserError as error:
                if len(self.sources) == 1:
                    raise
                self.broken.append((str(source.path), str(error)))
        if not found and self.trainer is not None:
            self.trainer.lightning_module.cursor.zero_()  # type: ignore[operator]
        return tuple(found)

    def leave_out(self, pictures: tuple[Picture, ...], error: UserError) -> None:
        """Counts the pictures of a group whose inversion failed as broken; the others are done all the same.

        Raises:
            UserError: There are no others.
        """
        if len(self.order) == 1:
            raise error
        hint = "; with --data.batch_size 1 the others of its group may be done" if len(pictures) > 1 else ""
        self.broken += [(str(picture.path), f"{error}{hint}") for picture in pictures]

    def _read(self, source: Source) -> Picture:
        frame = self.frame()
        picture = read_picture(
            source.path,
            prompt=source.prompt,
            crop=frame.crop,
            size=frame.size,
            multiple=frame.multiple,
            max_pixels=self.max_pixels,
            row=source.row,
        )
        if picture.sha256 != source.sha256:
            raise UserError(f"{source.path} was changed while the run was under way; run again for it")
        return replace(picture, name=source.name)


def _match(identity: Mapping[str, Any], sources: Sequence[Source]) -> Source | None:
    """The picture that a checkpoint is of, under the name that it has there; it may have been renamed since."""
    same = [s for s in sources if (s.sha256, s.prompt) == (identity["sha256"], identity["prompt"])]
    same.sort(key=lambda source: source.name != identity["name"])
    return replace(same[0], name=identity["name"]) if same else None


class TimestepLoader:
    """T batches a group, starting where the module stands.

    Lightning restores the number of the batch but does not wind a loader forward: after a restart it asks
    for batch k and would get batch 0. This loader asks the module instead, and keeps its length T, by which
    Lightning knows when the epoch is over.

    Args:
        steps: T.
        where: Gives the current group and the step at which the module stands; T and 0 both mean a new group.
        read: Gives the pictures of a group.
        gave_up: Says whether the group is left out from the step just tried on.
    """

    def __init__(
        self,
        steps: int,
        where: Callable[[], tuple[int, int]],
        read: Callable[[int], tuple[Picture, ...]],
        gave_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.steps, self.where, self.read, self.gave_up = steps, where, read, gave_up

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Timestep]:
        group, cursor = self.where()
        pictures = self.read(group)
        if not pictures:
            return
        for step in range(cursor % self.steps, self.steps):
            yield Timestep(step, group, pictures)
            if self.gave_up():
                return


def find_pictures(wanted: Sequence[Path]) -> tuple[list[Row], list[tuple[str, str]]]:
    """What files, folders, globs and metadata files name: a row a picture, in a fixed order, each once.

    Returns:
        The rows, and what could not be read as (place, reason).

    Raises:
        UserError: One of them names nothing.
    """
    tables = Tables()
    found: list[Row] = []
    for path in wanted:
        if path.suffix in (".jsonl", ".csv") and path.is_file():
            found += tables.rows(path)
        elif path.is_dir():
            found += _folder(path, tables)
        else:
            found += [tables.row_of(picture, picture.parent) for picture in _expand(path)]
    rows: dict[Path | None, Row] = {}
    for row in found:
        rows.setdefault(row.path, row)
    if not rows and not tables.broken:
        raise UserError(
            f"no picture in {', '.join(map(str, wanted))}; pictures end in .png, .jpg, .webp, ..."
        )
    return list(rows.values()), tables.broken


class Tables:
    """The metadata files met on the way, each read once."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str]] = []
        self._rows: dict[Path, dict[Path, Row]] = {}

    def rows(self, table: Path) -> list[Row]:
        """The rows of a metadata file; what is wrong with others goes to ``broken``."""
        if table not in self._rows:
            found, problems = read_metadata(table)
            self.broken += problems
            self._rows[table] = {row.path: row for row in found if row.path}
        return list(self._rows[table].values())

    def row_of(self, picture: Path, top: Path) -> Row:
        """The picture's row in the nearest metadata file between its folder and ``top``."""
        for folder in (picture.parent, *picture.parent.parents):
            for table in (folder / name for name in METADATA_NAMES):
                if table.is_file():
                    self.rows(table)
                    return self._rows[table].get(picture, Row(path=picture))
            if folder == top:
                break
        return Row(path=picture)


def _folder(folder: Path, tables: Tables) -> list[Row]:
    """A folder's pictures, sorted, and what its metadata file names besides; masks are no pictures."""
    named = [
        row for name in METADATA_NAMES if (folder / name).is_file() for row in tables.rows(folder / name)
    ]
    masks = {row.mask_path for row in named}
    files = sorted(p for p in folder.rglob("*") if _is_picture(p.relative_to(folder)) and p.is_file())
    return [tables.row_of(p, folder) for p in files if p not in masks] + named


def _expand(path: Path) -> list[Path]:
    """The pictures that a glob matches, sorted; a file as it is."""
    if path.exists() or not glob.has_magic(str(path)):
        return [path]
    found = sorted(Path(p) for p in glob.glob(os.path.expanduser(path), recursive=True))
    pictures = [p for p in found if p.is_file() and p.suffix.lower() in SUFFIXES]
    if not pictures:
        raise UserError(f"no picture matches {path}; quote the pattern and check the folder")
    return pictures


def _is_picture(relative: Path) -> bool:
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and relative.suffix.lower() in SUFFIXES


def unique_names(paths: Sequence[Path]) -> dict[Path, str]:
    """A folder name for each picture: its stem, numbered where another has it already."""
    taken = {name.casefold() for name in RESERVED_NAMES}
    names: dict[Path, str] = {}
    for path in paths:
        stem = re.sub(r"[^\w.\- ()+,@]", "_", path.stem)[:100].strip(". ") or "picture"
        name, number = stem, 2
        while name.casefold() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.casefold())
        names[path] = name
    return names


def group_by_size(sources: Sequence[Source], frame: Frame, batch_size: int) -> list[list[Source]]:
    """Groups of at most ``batch_size`` pictures whose results have one size, in order of appearance."""
    sizes = [frame.target(source.size[1], source.size[0]) for source in sources]
    first = {size: index for index, size in reversed(list(enumerate(sizes)))}
    order = sorted(range(len(sources)), key=lambda index: (first[sizes[index]], index))
    groups: list[list[Source]] = []
    for _, members in groupby(order, key=lambda index: sizes[index]):
        same = [sources[index] for index in members]
        groups += [same[start : start + batch_size] for start in range(0, len(same), batch_size)]
    return groups
