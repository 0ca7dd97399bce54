"""What the page does with an inverted picture: edits, their history, methods side by side."""

from __future__ import annotations

import html
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nulltext.app import dials, shelf
from nulltext.app.desk import COMMAND
from nulltext.app.inverting import Changes, Inverting, Sheet, say
from nulltext.errors import UserError

SHOWN = ("kind", "guidance_scale", "cross_replace", "self_replace", "null", "detail_steps", "seed")


class Actions(Inverting):
    """The actions of a page."""

    def place(self, g: Any) -> Changes:
        """Where was chosen."""
        import gradio as gr

        return {"blend_words": gr.Textbox(visible=g.where == dials.WORDS)}

    def painted(self, g: Any) -> Changes:
        """The brush was used."""
        return {"where": dials.PAINTED}

    def edit(self, g: Any) -> Iterator[Changes]:
        """Makes the edit, or its variants."""
        import gradio as gr

        folder, sheet = self._folder(g.sheet), g.sheet
        if not g.wanted.strip():
            raise UserError("Say what the picture is to show.")
        mask = str(shelf.write_painting(g.brush or "", folder)) if g.where == dials.PAINTED else ""
        several = dials.options_of({**vars(g), "prompt": g.wanted}, mask)
        sheet.results, sheet.stop = [], False
        for k, options in enumerate(several):
            yield {"status": say(f"Editing: {k + 1} of {len(several)}.", k / len(several))}
            sheet.results.append(self.desk.edit(self._words(folder, options)).path)
            varied = [", ".join(v.values()) for v in dials.VARIANTS[g.variants]]
            rows = shelf.gallery(zip(sheet.results, varied, strict=False))
            shown = {
                **self._result(sheet, sheet.results[-1]),
                "gallery": gr.Gallery(rows, visible=len(several) > 1),
            }
            yield {name: change for name, change in shown.items() if not (mask and name == "brush")}
        yield {"status": say("Done."), "past": self._past(folder)}

    def _folder(self, sheet: Sheet) -> Path:
        if sheet.folder is None:
            raise UserError("Which picture? Invert one first, or open a run: Picture.")
        return sheet.folder

    def _words(self, folder: Path, options: dict[str, str]) -> list[str]:
        """The words after ``python main.py edit``."""
        from nulltext.inversion.reading import read_facts

        facts, here = read_facts(folder / "inversion.safetensors"), os.path.relpath(folder)
        held = {"inversion": str(folder) if here.startswith("..") else here}
        method, precision = facts.get("method", "null_text"), self.desk.options.precision
        held |= {} if method == "null_text" else {"method": method}
        held |= {} if precision == "32-true" else {"precision": precision}
        held |= {} if self.desk.options.device == "auto" else {"device": self.desk.options.device}
        return dials.as_words({**held, **options})

    def _result(self, sheet: Sheet, path: Path) -> Changes:
        """Shows an edit, why it is as it is, and what to take away of it."""
        import gradio as gr

        folder, facts = self._folder(sheet), shelf.read_json(path.with_suffix(".json"))
        mask = path.with_name(f"{path.stem}-mask.png")
        sheet.current, sheet.attention = path, {}
        chosen = ", ".join(f"{name} {facts[name]}" for name in SHOWN if facts.get(name) not in (None, ""))
        acts = (
            f"; it may act on {facts['masked_share']:.0%} of the picture" if facts.get("masked_share") else ""
        )
        why = [f"Chosen: {chosen}{acts}; {facts.get('seconds', '?')} s."]
        why += [f"**Note:** {html.escape(note)}" for note in facts.get("notes", [])]
        found = {} if not mask.is_file() else {"brush": gr.HTML(value=shelf.data_url(shelf.shown(mask)))}
        words = dict.fromkeys(word.strip(",.") for word in str(facts.get("prompt", "")).split())
        return {
            **found,
            "slider": gr.ImageSlider((shelf.shown(folder / "original.png"), shelf.shown(path)), visible=True),
            "why": "\n\n".join(why),
            "word": gr.Radio(choices=list(words), value=None, visible="command" in facts),
            "heat": gr.Image(value=None, visible=False),
            "files": [str(path), str(folder / "inversion.safetensors")],
            "command": facts.get("command", ""),
            "settings": json.dumps(facts, indent=1, ensure_ascii=False),
        }

    def choose(self, g: Any) -> Changes:
        """One of the variants was picked."""
        return self._result(g.sheet, g.sheet.results[g.index])

    def attend(self, g: Any) -> Iterator[Changes]:
        """Shows where the model looks for a word; the first word of an edit makes the edit again."""
        import gradio as gr
        from PIL import Image

        from nulltext.pixels import from_image
        from nulltext.plots import heat_over

        sheet = g.sheet
        if g.word not in sheet.attention:
            yield {"status": say("Looking.", 0.5)}
            words = [*shlex.split(g.command)[len(COMMAND) :], "--attention", g.word]
            sheet.attention |= self.desk.edit(words, write=False).attention
        heat = heat_over(from_image(Image.open(sheet.current)), sheet.attention[g.word])
        yield {
            "heat": gr.Image(value=shelf.shown(heat), visible=True),
            "status": say(f"Where it looks for {g.word!r}."),
        }

    def compare(self, g: Any) -> Iterator[Changes]:
        """Inverts the open picture by several methods."""
        folder, shown, sheet = self._folder(g.sheet), list[Any](), g.sheet
        import gradio as gr

        from nulltext.inversion.reading import read_facts
        from nulltext.runs.results import method_of

        facts = read_facts(folder / "inversion.safetensors")
        rows = [
            "| method | PSNR in dB (higher is better) | seconds | evaluations | gradients | run |",
            "|---|---|---|---|---|---|",
        ]
        with tempfile.TemporaryDirectory() as place:
            copy = shutil.copy(folder / "original.png", Path(place) / f"{folder.name}.png")
            size = "{},{}".format(*facts["size"])
            about = [f"--data.image={copy}", f"--data.prompt={facts['prompt']}", f"--data.size={size}"]
            shown.append((folder / "original.png", "the picture"))
            for name in g.methods:
                fitted = yield from self._fit(
                    sheet, [*self.desk.words_for(name), *about], [], f"Inverting by {name}"
                )
                if fitted.picture is None:
                    break
                numbers = shelf.read_json(fitted.picture / "metrics.json")
                shown.append((fitted.picture / "reconstruction.png", f"{name}: reconstruction"))
                if g.both.strip():
                    made = self.desk.edit(self._words(fitted.picture, {"prompt": g.both.strip()}))
                    shown.append((made.path, f"{name}: edit"))
                costs = f"{numbers['seconds_total']:.1f} | {numbers['unet_forwards']} | {numbers['unet_backwards']}"
                rows.append(
                    f"| {name} | {numbers[f'psnr_{method_of(numbers)}']:.2f} | {costs} | {fitted.run.name} |"
                )
                yield {"compared": gr.Gallery(shelf.gallery(shown), visible=True), "table": "\n".join(rows)}
        yield {"status": say("Stopped." if sheet.stop else "Compared.")}

    def take_up(self, g: Any) -> Changes:
        """An edit of the history was picked: its picture, and its dials."""
        import gradio as gr

        folder = self._folder(g.sheet)
        path, facts = shelf.history(folder)[g.index]
        words = (
            shlex.split(facts["command"])[len(COMMAND) :]
            if "command" in facts
            else ["--prompt", facts["prompt"]]
        )
        taken = dials.dials_of(words)
        mask, blend = taken.pop("mask"), taken.pop("blend_words")
        shown = self._result(g.sheet, path)
        if mask:
            shown["brush"] = gr.HTML(value=shelf.painting(Path(mask), folder))
        return {
            **shown,
            **taken,
            "prompt": g.prompt,
            "wanted": taken["prompt"],
            "blend_words": gr.Textbox(value=blend, visible=taken["where"] == dials.WORDS),
            "gallery": gr.Gallery(value=[], visible=False),
            "tabs": gr.Tabs(selected="edit"),
            "status": say("Taken up again with its settings; the exact ones are under More dials."),
        }
