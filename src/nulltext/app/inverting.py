"""What the page does to have a picture inverted: a method for each action; it gives what changes on the page."""

from __future__ import annotations

import html
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from nulltext.app import dials, shelf
from nulltext.app.desk import Desk
from nulltext.errors import UserError

Changes: TypeAlias = dict[str, Any]

CROPS = {"Middle square": "center", "Whole picture": "none"}
BOX = "A square of my own"


@dataclass
class Sheet:
    """What one person has on the desk; nobody else sees it."""

    picture: str = ""  # the file to invert
    size: tuple[int, int] = (1, 1)  # (width, height) of it
    folder: Path | None = None  # of the open inversion
    again: list[str] = field(default_factory=list)  # the words that go on with a stopped run
    stop: bool = False
    results: list[Path] = field(default_factory=list)  # the variants of the last edit
    current: Path | None = None  # the one that is shown
    attention: dict[str, Any] = field(default_factory=dict)  # of its words, once looked at


def say(text: str, done: float | None = None, *, bad: bool = False) -> str:
    """The line at the foot of the page, with a bar where something is under way."""
    bar = "" if done is None else f'<progress value="{done:.3f}" aria-label="Done so far"></progress>'
    return f'<p role="status" class="{"bad" if bad else "good"}">{bar}{html.escape(text)}</p>'


class Inverting:
    """The actions that lead to an inverted picture."""

    def __init__(self, desk: Desk, examples: Sequence[Path]) -> None:
        self.desk, self.examples = desk, examples

    def begin(self, g: Any) -> Iterator[Changes]:
        """A person opens the page."""
        import gradio as gr

        yield {"open": gr.Dropdown(choices=list(shelf.runs(self.desk.root)))}
        model = self.desk.model
        from nulltext.cli.options import descriptions
        from nulltext.editing import Edit
        from nulltext.inversion import METHODS

        names, says = list(METHODS), descriptions(Edit)
        first = self.desk.options.method_name
        yield {
            "status": say(f"The model {model.name} is ready."),
            "method": gr.Dropdown(choices=list(dict.fromkeys([first, *names])), value=first),
            "methods": gr.CheckboxGroup(choices=names, value=names),
            **{name: gr.Textbox(info=says[name]) for name in dials.MORE},
        }

    def look(self, g: Any) -> Changes:
        """A picture was dropped."""
        g.sheet.picture = g.file or ""
        return {
            **self.crop(g),
            "prompt": self._framed(g)[1],
            "status": say("Say what it shows, then invert it."),
        }

    def example(self, g: Any) -> Changes:
        """An example was picked."""
        g.file = str(self.examples[g.index])
        return self.look(g)

    def crop(self, g: Any) -> Changes:
        """The crop was changed."""
        import gradio as gr

        shown = {"preview": gr.Image(self._framed(g)[0], visible=True)} if g.sheet.picture else {}
        return {**shown, "box": gr.Row(visible=g.crop == BOX)}

    def _framed(self, g: Any) -> tuple[Any, str]:
        model = self.desk.model
        size = self.desk.options.size or model.default_size
        path = Path(g.sheet.picture)
        image, prompt, g.sheet.size = shelf.framed(path, "none", size, model.size_multiple)
        image, prompt, _ = shelf.framed(path, self._rule(g), size, model.size_multiple)
        return image, prompt

    def _rule(self, g: Any) -> str:
        """The crop as ``--data.crop`` takes it."""
        if g.crop != BOX:
            return CROPS[g.crop]
        width, height = g.sheet.size
        side = max(16, round(min(width, height) * g.side / 100))
        left, top = round((width - side) * g.left / 100), round((height - side) * g.top / 100)
        return f"{left},{top},{left + side},{top + side}"

    def invert(self, g: Any) -> Iterator[Changes]:
        """Inverts the picture."""
        if not g.sheet.picture:
            raise UserError("Which picture? Drop one, or take an example.")
        if not g.prompt.strip():
            raise UserError("Say what the picture shows: its words are what you edit.")
        rule = self._rule(g)
        about = [f"--data.image={g.sheet.picture}", f"--data.prompt={g.prompt}", f"--data.crop={rule}"]
        yield from self._run(g.sheet, [*self.desk.words_for(g.method), *about])

    def go_on(self, g: Any) -> Iterator[Changes]:
        """Goes on with the run that was stopped."""
        yield from self._run(g.sheet, g.sheet.again)

    def stop(self, g: Any) -> Changes:
        """Stops after the step that is under way."""
        g.sheet.stop = True
        return {"status": say("Stopping after this step.")}

    def _run(self, sheet: Sheet, words: Sequence[str]) -> Iterator[Changes]:
        import gradio as gr

        notes: list[str] = []
        fitted = yield from self._fit(sheet, words, notes, "Inverting")
        if fitted.picture is None:
            sheet.again = [*(w for w in words if not w.startswith("--ckpt")), f"--ckpt_path={fitted.run}"]
            kept = f"Stopped. What is done is in {fitted.run}; it goes on bit for bit."
            yield {"status": say(kept), "go_on": gr.Button(visible=True)}
            return
        told = " ".join(["Inverted and saved.", *notes, "Now change words of its prompt: Edit."])
        yield {**self._opened(sheet, fitted.picture), "status": say(told), "go_on": gr.Button(visible=False)}

    def _fit(self, sheet: Sheet, words: Sequence[str], notes: list[str], what: str) -> Any:
        """Runs ``fit`` with a bar; returns what it left."""
        sheet.stop, started = False, time.monotonic()
        yield {"status": say(f"{what}.", 0)}
        run = self.desk.invert(words, lambda: sheet.stop, notes)
        while True:
            try:
                done, steps = next(run)
            except StopIteration as end:
                return end.value
            left = (time.monotonic() - started) / done * (steps - done)
            yield {"status": say(f"{what}: step {done} of {steps}, about {left:.0f} s left.", done / steps)}

    def open(self, g: Any) -> Changes:
        """Opens a run that was made before."""
        found = shelf.runs(self.desk.root)
        if g.open not in found:
            raise UserError(f"There is no run {g.open} any more.")
        return {**self._opened(g.sheet, found[g.open]), "status": say(f"{g.open} is open: Edit.")}

    def _opened(self, sheet: Sheet, folder: Path) -> Changes:
        import gradio as gr

        from nulltext.inversion.file import Inversion

        inversion = Inversion.load(folder / "inversion.safetensors")
        inversion.check(self.desk.model)
        sheet.folder, sheet.results, sheet.attention = folder, [], {}
        original = shelf.shown(folder / "original.png")
        return {
            "inverted": gr.ImageSlider((original, shelf.shown(folder / "reconstruction.png")), visible=True),
            "fidelity": shelf.fidelity(folder),
            "open": gr.Dropdown(choices=list(shelf.runs(self.desk.root)), value=None),
            "wanted": inversion.prompt,
            "brush": gr.HTML(value="", picture=shelf.data_url(original)),
            "slider": gr.ImageSlider((original, original), visible=True),
            "why": f"The picture: *{html.escape(inversion.prompt)}*",
            "gallery": gr.Gallery(value=[], visible=False),
            "past": self._past(folder),
        }

    def _past(self, folder: Path) -> Any:
        import gradio as gr

        found = [(path, str(facts.get("prompt", ""))) for path, facts in shelf.history(folder)]
        return gr.Gallery(shelf.gallery(found), visible=bool(found))
