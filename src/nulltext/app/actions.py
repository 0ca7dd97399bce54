"""What the page does: an action for each thing that a person may do on it; it gives what changes on the page."""

from __future__ import annotations

import base64
import html
import json
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from nulltext.app import dials
from nulltext.app.desk import COMMAND, Desk
from nulltext.app.layout import Changes, Sheet, say
from nulltext.cli.options import descriptions
from nulltext.cli.words import as_words
from nulltext.data.colour import upright
from nulltext.data.decode import decode
from nulltext.data.frame import Frame, parse_size, square
from nulltext.data.prompts import find_prompt
from nulltext.editing import Edit
from nulltext.errors import UserError
from nulltext.evaluation.report.tables import Table
from nulltext.inversion import METHODS
from nulltext.inversion.file import Inversion
from nulltext.inversion.reading import read_facts
from nulltext.pixels import from_image
from nulltext.plots import heat_over
from nulltext.plots.small import contained, data_url, framed
from nulltext.runs import shelf
from nulltext.runs.finished import ARTIFACT

CHOSEN = ("kind", "guidance_scale", "cross_replace", "self_replace", "null", "seed")


class Actions:
    """The actions, each of the values ``g`` on one person's page; ``g.show`` shows what changes before the end."""

    def __init__(self, desk: Desk, examples: Sequence[Path]) -> None:
        self.desk, self.examples = desk, examples

    def begin(self, g: Any) -> Changes:
        """A person opens the page."""
        names, says, own = list(METHODS), descriptions(Edit), self.desk.method
        return {
            "status": say(f"The model {self.desk.model.name} is ready."),
            "open": {"choices": list(shelf.inverted(self.desk.root))},
            "method": {"choices": list(dict.fromkeys([own, *names])), "value": own},
            "methods": {"choices": names, "value": names},
            **{name: {"info": says[name]} for name in dials.MORE},
        }

    def look(self, g: Any) -> Changes:
        """A picture was dropped, or an example picked."""
        g.file = g.file if g.index is None else str(self.examples[g.index])
        found = find_prompt(Path(g.file), self._photo(g), caption=lambda _: "")  # "" where nothing has one
        told = say("Say what it shows, then invert it.")
        return {**self.crop(g), "file": g.file, "prompt": found.text, "status": told}

    def crop(self, g: Any) -> Changes:
        """The crop was changed."""
        model, box = self.desk.model, {"box": {"visible": g.crop == "box"}}
        if not g.file:
            return box
        photo = upright(self._photo(g))
        frame = Frame(self._rule(g), parse_size(self.desk.size) or model.default_size, model.size_multiple)
        return {**box, "preview": framed(photo, frame.place(*photo.size).box)}

    def _photo(self, g: Any) -> Image.Image:
        """The picture as its file has it, decoded once."""
        if g.sheet.photo[0] != g.file:
            g.sheet.photo = (g.file, decode(g.file)[0])
        return g.sheet.photo[1]

    def _rule(self, g: Any) -> str:
        """The crop as ``--data.crop`` takes it."""
        if g.crop != "box":
            return str(g.crop)
        return square(upright(self._photo(g)).size, g.side, g.left, g.top)

    def invert(self, g: Any) -> Changes:
        """Inverts the picture."""
        if not g.file:
            raise UserError("Which picture? Drop one, or take an example.")
        if not g.prompt.strip():
            raise UserError("Say what the picture shows: its words are what you edit.")
        words = self.desk.words_for(g.method, image=g.file, prompt=g.prompt, crop=self._rule(g))
        return self._run(g, words)

    def go_on(self, g: Any) -> Changes:
        """Goes on with the run that was stopped."""
        return self._run(g, g.sheet.again)

    def stop(self, g: Any) -> Changes:
        """Stops after the step that is under way."""
        g.sheet.stop = True
        return {"status": say("Stopping after this step.")}

    def _run(self, g: Any, words: Sequence[str]) -> Changes:
        folder, notes = self._fit(g, words, "Inverting")
        if not (folder / ARTIFACT).is_file():
            g.sheet.again = [*words, f"--ckpt_path={folder.parent}"]
            kept = f"Stopped. What is done is in {folder.parent}; it goes on bit for bit."
            return {"status": say(kept), "go_on": {"visible": True}}
        told = ". ".join(["Inverted and saved", *notes, "Now change words of its prompt: Edit."])
        return {**self._opened(g.sheet, folder), "status": say(told), "go_on": {"visible": False}}

    def _fit(self, g: Any, words: Sequence[str], what: str) -> tuple[Path, list[str]]:
        """Runs ``fit`` with a bar."""
        sheet, started = g.sheet, time.monotonic()

        def after_step(done: int, steps: int) -> bool:
            left = (time.monotonic() - started) / done * (steps - done)
            g.show(status=say(f"{what}: step {done} of {steps}, about {left:.0f} s left.", done / steps))
            return bool(sheet.stop)

        sheet.stop = False
        g.show(status=say(f"{what}.", 0))
        return self.desk.invert(words, after_step)

    def open(self, g: Any) -> Changes:
        """Opens a run that was made before."""
        found = shelf.inverted(self.desk.root)
        if g.open not in found:
            raise UserError(f"There is no run {g.open} any more.")
        return {**self._opened(g.sheet, found[g.open]), "status": say(f"{g.open} is open: Edit.")}

    def _opened(self, sheet: Sheet, folder: Path) -> Changes:
        inversion = Inversion.load(folder / ARTIFACT)
        inversion.check(self.desk.model)
        sheet.folder, sheet.results, sheet.mask = folder, [], None
        original = folder / "original.png"
        return {
            "inverted": (original, folder / "reconstruction.png"),
            "fidelity": shelf.fidelity(folder),
            "open": {"choices": list(shelf.inverted(self.desk.root)), "value": None},
            "wanted": inversion.prompt,
            "brush": {"value": "", "picture": data_url(Image.open(original))},
            "slider": (original, original),
            "why": f"The picture: *{html.escape(inversion.prompt)}*",
            "gallery": [],
            "past": shelf.history(folder),
        }

    def place(self, g: Any) -> Changes:
        """Where was chosen."""
        return {"blend_words": {"visible": g.where == "words"}}

    def painted(self, g: Any) -> Changes:
        """The brush was used."""
        g.sheet.mask = None
        return {"where": "mask"}

    def edit(self, g: Any) -> Changes:
        """Makes the edit, or its variants."""
        folder, sheet, mask = self._folder(g.sheet), g.sheet, ""
        if not g.wanted.strip():
            raise UserError("Say what the picture is to show.")
        if g.where == "mask":
            painted = base64.b64decode((g.brush or "").partition(",")[2])
            mask = str(sheet.mask or shelf.write_mask(painted, folder))
        several, sheet.results = dials.options_of(vars(g), mask), []
        for k, options in enumerate(several):
            g.show(status=say(f"Editing: {k + 1} of {len(several)}.", k / len(several)))
            path, _ = self.desk.edit(self._words(folder, options))
            sheet.results.append((path, ", ".join(dials.VARIANTS[g.variants][k].values())))
            gallery = list(sheet.results) if len(several) > 1 else []
            g.show(**self._result(sheet, path, brush=not mask), gallery=gallery)
        return {"status": say("Done."), "past": shelf.history(folder)}

    def _folder(self, sheet: Sheet) -> Path:
        if sheet.folder is None:
            raise UserError("Which picture? Invert one first, or open a run: Picture.")
        return sheet.folder

    def _words(self, folder: Path, options: dict[str, str]) -> list[str]:
        """The words after ``python main.py edit``."""
        place = {k: v for k, v in self.desk.place.items() if v not in ("auto", "32-true")}
        return as_words({"inversion": str(folder), **place, **options})

    def _result(self, sheet: Sheet, path: Path, brush: bool = True) -> Changes:
        """Shows an edit, its mask on the brush, why it is as it is, and what to take away of it."""
        folder, facts = self._folder(sheet), shelf.read_json(path.with_suffix(".json"))
        mask, share = path.with_name(f"{path.stem}-mask.png"), facts.get("masked_share")
        sheet.current, sheet.attention, sheet.mask = path, {}, None if brush else sheet.mask
        chosen = ", ".join(f"{name} {facts[name]}" for name in CHOSEN if facts.get(name) not in (None, ""))
        acts = f"; it may act on {share:.0%} of the picture" if share else ""
        why = [f"Chosen: {chosen}{acts}; {facts.get('seconds', '?')} s."]
        why += [f"**Note:** {html.escape(note)}" for note in facts.get("notes", [])]
        words = list(dict.fromkeys(word.strip(",.") for word in str(facts.get("prompt", "")).split()))
        return {
            **({"brush": data_url(Image.open(mask))} if brush and mask.is_file() else {}),
            "slider": (folder / "original.png", path),
            "why": "\n\n".join(why),
            "word": {"choices": words, "value": None, "visible": "command" in facts},
            "heat": None,
            "files": [str(path), str(folder / ARTIFACT)],
            "command": facts.get("command", ""),
            "settings": json.dumps(facts, indent=1, ensure_ascii=False),
        }

    def choose(self, g: Any) -> Changes:
        """One of the variants was picked."""
        return self._result(g.sheet, g.sheet.results[g.index][0])

    def attend(self, g: Any) -> Changes:
        """Shows where the model looks for a word; the first time the edit is made again."""
        sheet = g.sheet
        if g.word not in sheet.attention:
            g.show(status=say("Looking.", 0.5))
            words = [*shlex.split(g.command)[len(COMMAND) :], "--attention", g.word]
            sheet.attention |= self.desk.edit(words, write=False)[1]
        heat = contained(heat_over(from_image(Image.open(sheet.current)), sheet.attention[g.word]))
        return {"heat": heat, "status": say(f"Where it looks for {g.word!r}.")}

    def compare(self, g: Any) -> Changes:
        """Inverts the open picture by several methods, and edits it after each."""
        folder, both, rows = self._folder(g.sheet), g.both.strip(), list[list[str]]()
        facts, shown = read_facts(folder / ARTIFACT), [(folder / "original.png", "the picture")]
        size = "{},{}".format(*facts["size"])
        with tempfile.TemporaryDirectory() as place:
            copy = shutil.copy(folder / "original.png", Path(place) / f"{folder.name}.png")
            for name in g.methods:
                words = self.desk.words_for(name, image=copy, prompt=facts["prompt"], size=size)
                picture, _ = self._fit(g, words, f"Inverting by {name}")
                if not (picture / ARTIFACT).is_file():
                    return {"status": say("Stopped.")}
                shown.append((picture / "reconstruction.png", f"{name}: reconstruction"))
                if both:
                    made, _ = self.desk.edit(self._words(picture, {"prompt": both}))
                    shown.append((made, f"{name}: edit"))
                rows.append(shelf.costs(picture))
                g.show(compared=list(shown), table=Table("Costs", shelf.COSTS, rows).markdown())
        return {"status": say("Compared.")}

    def take_up(self, g: Any) -> Changes:
        """An edit of the history was picked: its picture, and its dials."""
        path, prompt = shelf.history(self._folder(g.sheet))[g.index]
        shown = self._result(g.sheet, path)
        words = shlex.split(shown["command"])[len(COMMAND) :]
        taken, mask = dials.dials_of(words or [f"--prompt={prompt}"])
        g.sheet.mask = Path(mask) if mask else None
        return {
            **shown,
            **taken,
            "gallery": [],
            "tabs": {"selected": "edit"},
            "status": say("Taken up again with its settings; the exact ones are under More dials."),
        }
