"""Pictures on their way to the module: found, checked, grouped by size, given out by the timestep."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nulltext.data.colour import upright
from nulltext.data.decode import decode
from nulltext.data.find import find_pictures, unique_names
from nulltext.data.frame import Frame, parse_crop, parse_size
from nulltext.data.metadata import Row
from nulltext.data.picture import Picture, read_picture
from nulltext.data.prompts import Captioner, find_prompt
from nulltext.errors import UserError
from nulltext.runs.folder import run_folder
from nulltext.training.groups import (
    Source,
    TimestepLoader,
    fitting_batch,
    group_by_size,
    match,
    split_finished,
)
from nulltext.training.options import PictureOptions


class PictureData(LightningDataModule):
    """The pictures to invert.

    Args:
        options: The fields of ``PictureOptions``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__()
        given = PictureOptions(**options)
        image = given.image
        self.image = [] if image is None else [image] if isinstance(image, str | Path) else list(image)
        self.prompt, self.captioner = given.prompt, given.captioner
        self.crop, self.size = given.crop, parse_size(given.size)
        self.batch_size, self.max_pixels = given.batch_size, given.max_pixels
        self.sources: list[Source] = []
        self.groups: list[list[Source]] = []
        self.broken: list[tuple[str, str]] = []  # which of several could not be used, and why
        self.finished: list[str] = []  # names of the pictures that the run folder holds already
        self.told: set[str] = set()  # notes that were printed, each once
        self.order: list[str] = []  # names of all pictures of the run, of the other ranks too

    def setup(self, stage: str) -> None:
        """Finds and checks every picture, before any weights are read."""
        if self.trainer is not None:
            self.trainer.fit_loop.max_epochs = -1  # else Lightning refuses a checkpoint of the second group
        if self.sources:
            return
        self._check_settings()
        rows, problems = find_pictures(self.image)
        rank, ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        self.broken = problems[rank::ranks]
        caption = Captioner(self.captioner) if self.captioner else None
        names = unique_names([row.path for row in rows])
        self.order = list(names.values())
        for row in rows[rank::ranks]:
            try:
                self.sources.append(self._check(row, names, caption))
            except UserError as error:
                self.broken.append((str(row.path), str(error)))
        if not self.sources and self.broken and ranks == 1:
            place, reason = self.broken[0]
            if len(self.broken) == 1:
                raise UserError(reason if place in reason else f"{place}: {reason}")
            raise UserError(f"none of {len(self.broken)} pictures can be used; the first: {reason}")
        for source in self.sources:
            if source.prompt_source != "given":  # by the user on the command line
                print(f"nulltext: {source.name}: {source.prompt!r} (from {source.prompt_source})", flush=True)

    def _check_settings(self) -> None:
        if not self.image:
            raise UserError(
                "which picture? give --data.image sheep.jpg (or a folder, a glob, a metadata.jsonl)"
            )
        if (batch := self.batch_size) is not None and batch < 1:
            raise UserError(f"--data.batch_size {batch} is too small; use 1 or more, or leave it out")
        if self.max_pixels < 1:
            raise UserError(f"--data.max_pixels {self.max_pixels} admits no picture; use 100000000")
        parse_crop(self.crop)
        if self.size is not None:
            Frame(self.crop, self.size, multiple=1)

    def _check(self, row: Row, names: dict[Path, str], caption: Captioner | None) -> Source:
        """Decodes the picture once to know that it can be, and forgets the pixels."""
        image, sha256 = decode(row.path, self.max_pixels)
        found = find_prompt(row.path, image, self.prompt, row, caption)
        picture = upright(image)
        Frame(self.crop, self.size or 64, multiple=1).target(*picture.size)
        if not found.text:
            rank_zero_warn(f"{row.path}: the prompt is empty, so guidance has nothing to guide")
        size = (picture.height, picture.width)
        return Source(row.path, names[row.path], found.text, found.source, size, row, sha256)

    def frame(self) -> Frame:
        """The rule of cutting and resizing, with the model's own numbers where the user gave none."""
        module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
        return Frame(self.crop, self.size or module.model.default_size, module.model.size_multiple)

    def train_dataloader(self) -> TimestepLoader:
        """Plans the groups, one an epoch, and sets the number of epochs to theirs.

        Called by Lightning when the model and the checkpoint are loaded. The first group of a resumed run is the
        checkpoint's; its epoch is the checkpoint's too, so groups are counted from there.
        """
        trainer, module = self.trainer, self.trainer.lightning_module  # type: ignore[union-attr]
        assert trainer is not None
        first = trainer.current_epoch
        self.groups = self._plan(module)
        trainer.fit_loop.max_epochs = first + len(self.groups)
        return TimestepLoader(
            steps=module.method.steps,  # type: ignore[union-attr,arg-type]
            where=lambda: (trainer.current_epoch - first, int(module.cursor)),  # type: ignore[arg-type]
            read=self.pictures,
            gave_up=lambda: module.record is None,
        )

    def _plan(self, module: Any) -> list[list[Source]]:
        """The groups that are left to do, all of one size each; an unfinished one of a checkpoint first, whole."""
        frame, fitting = self.frame(), list[Source]()
        for source in self.sources:
            try:
                source.target(frame)
                fitting.append(source)
            except UserError as error:
                self._break(source, error)
        folder = run_folder(module.trainer)
        sources, done = split_finished(folder, fitting, frame, module.model, module.method)
        at = [] if module.resumed is None else module.resumed["pictures"]
        whole = int(module.cursor) == module.method.steps
        current = [] if whole else [found for identity in at if (found := match(identity, sources))]
        current = current if len(current) == len(at) else []
        again = {source.path for source in current}
        self.finished = [s.name for s in sources if s.name in done and s.path not in again]
        batch = self.batch_size or fitting_batch(module.model, sources, frame, module.trainer.num_devices)
        rest = [
            [source for source in group if source.name not in done and source.path not in again]
            for group in group_by_size(sources, frame, batch)
        ]
        rest = [group for group in rest if group]
        return [current, *rest] if current or (at and whole) else rest

    def _break(self, source: Source, error: UserError) -> None:
        """Notes why a picture cannot be used; the only one ends the run."""
        if len(self.sources) == 1:
            raise error
        self.broken.append((str(source.path), str(error)))

    def pictures(self, group: int) -> tuple[Picture, ...]:
        """The pictures of a group, with their pixels; those that broke since they were checked are left out."""
        found: list[Picture] = []
        for source in self.groups[group]:
            said: dict[str, Any] = {"prompt": source.prompt, "row": source.row}
            try:
                picture = read_picture(source.path, self.frame(), max_pixels=self.max_pixels, **said)
                for note in [note for note in picture.notes if note not in self.told]:
                    self.told.add(note)
                    rank_zero_warn(f"{source.name}: {note}")
                if picture.sha256 != source.sha256:
                    raise UserError(
                        f"{source.path} was changed while the run was under way; run again for it"
                    )
                found.append(replace(picture, name=source.name))
            except UserError as error:
                self._break(source, error)
        if not found and self.trainer is not None:
            self.trainer.lightning_module.cursor.zero_()  # type: ignore[operator]
        return tuple(found)

    def leave_out(self, pictures: Sequence[Picture], error: UserError) -> None:
        """Counts the pictures of a group whose inversion failed as broken; the error ends a run of no others."""
        if len(self.order) == 1:
            raise error
        hint = "; with --data.batch_size 1 the others of its group may be done" if len(pictures) > 1 else ""
        self.broken += [(str(picture.path), f"{error}{hint}") for picture in pictures]
