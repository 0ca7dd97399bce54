"""What is on the page, and which action each part of it starts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from nulltext.app.dials import BOX, CROPS, LAYOUT, MORE, OPEN, STRENGTH, VARIANTS, WHERE, WORDS
from nulltext.app.guard import Sheet, guard, say
from nulltext.imports import no_collection

if TYPE_CHECKING:
    from nulltext.app.actions import Actions

INPUTS = (
    *"sheet file crop left top side prompt method open wanted variants strength layout where blend_words".split(),
    *"brush word command methods both".split(),
    *MORE,
)
"""The parts of the page whose values the actions get."""
STATIC = Path(__file__).parent / "static"


def load(words: Sequence[str], root: Path, examples: list[Path]) -> Future[Actions]:
    """Imports the libraries and loads the model, while the page is there already; who needs the actions waits."""
    loading: Future[Actions] = Future()

    def work() -> None:
        try:
            with no_collection():
                from nulltext.app.actions import Actions, Desk
            loading.set_result(Actions(Desk(words, root), examples))
        except BaseException as error:  # whatever it is, the page says it
            loading.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return loading


def build(loading: Future[Actions], examples: list[Path]) -> Any:
    """The page, not yet open to anybody."""
    import gradio as gr

    ui = SimpleNamespace()
    with gr.Blocks(title="nulltext", analytics_enabled=False, delete_cache=(86400, 86400)) as page:
        gr.Markdown("# nulltext\nChange a picture with words, while everything else stays as it was.")
        ui.sheet = gr.State(Sheet())
        with gr.Tabs() as ui.tabs:
            with gr.Tab("Picture", id="picture"), gr.Row():
                _picture(gr, ui, examples)
            with gr.Tab("Edit", id="edit"):
                ui.wanted = gr.Textbox("", label="What it is to show", info="Change words of the prompt.")
                ui.edit = gr.Button("Edit", variant="primary")
                with gr.Row():
                    _result(gr, ui)
                    _dials(gr, ui)
            with gr.Tab("Compare", id="compare"):
                gr.Markdown("Inverts the open picture by several methods, and edits it after each.")
                ui.methods = gr.CheckboxGroup([], label="Methods")
                ui.both = gr.Textbox("", label="An edit to compare as well", info="May be empty.")
                ui.compare = gr.Button("Compare", variant="primary")
                ui.compared = gr.Gallery(label="Side by side", columns=4, allow_preview=False, visible=False)
                ui.table = gr.Markdown()
            with gr.Tab("History", id="history"):
                gr.Markdown(
                    "The edits of the open picture. Choose one to take it up again with all its settings."
                )
                ui.past = gr.Gallery(label="Edits", columns=4, allow_preview=False, visible=False)
        ui.status = gr.HTML(say("The model is loading."), elem_id="status")
        for name, part in vars(ui).items():
            part.elem_id = part.elem_id or name
        _wire(gr, page, ui, loading)
    return page


def _picture(gr: Any, ui: SimpleNamespace, examples: list[Path]) -> None:
    with gr.Column():
        ui.file = gr.File(label="Drop a picture here, or choose one", height=120)
        ui.examples = gr.Gallery(
            examples, label="Or take an example", columns=4, height=150, allow_preview=False
        )
        ui.preview = gr.Image(label="What the model sees of it", format="png", buttons=[], visible=False)
        ui.crop = gr.Radio([*CROPS, BOX], value=next(iter(CROPS)), label="Crop")
        with gr.Row(visible=False) as ui.box:
            ui.left = gr.Slider(0, 100, 50, step=1, label="From the left, %")
            ui.top = gr.Slider(0, 100, 50, step=1, label="From the top, %")
            ui.side = gr.Slider(10, 100, 60, step=1, label="Size, %")
    with gr.Column():
        ui.prompt = gr.Textbox("", label="What it shows", info="As exactly as you can: you edit its words.")
        ui.method = gr.Dropdown(["null_text"], label="Method", info="How the picture is made reproducible.")
        with gr.Row():
            ui.invert = gr.Button("Invert", variant="primary")
            ui.stop = gr.Button("Stop")
            ui.go_on = gr.Button("Go on", visible=False)
        ui.fidelity = gr.Markdown()
        ui.inverted = gr.ImageSlider(
            label="Picture (left), reconstruction (right)", buttons=[], visible=False
        )
        ui.open = gr.Dropdown([], label="Or open a run", info="What fit or this page inverted before.")


def _dials(gr: Any, ui: SimpleNamespace) -> None:
    with gr.Column():
        ui.variants = gr.Radio(list(VARIANTS), value=next(iter(VARIANTS)), label="How many")
        ui.strength = gr.Radio(list(STRENGTH), value=OPEN, label="How strong")
        ui.layout = gr.Radio(list(LAYOUT), value=OPEN, label="How much of the layout stays")
        ui.where = gr.Radio(list(WHERE), value=next(iter(WHERE)), label="Where")
        commas = "Words of either prompt, with commas between."
        ui.blend_words = gr.Textbox("", label=WORDS, info=commas, visible=False)
        with gr.Accordion("The mask: see it, paint on it"):
            body, script = (STATIC.joinpath(f"brush.{kind}").read_text("utf-8") for kind in ("html", "js"))
            ui.brush = gr.HTML("", html_template=body, js_on_load=script, picture="", apply_default_css=False)
        with gr.Accordion("More dials", open=False):
            for name in MORE:
                setattr(ui, name, gr.Textbox("", label=name, placeholder="as suits"))


def _result(gr: Any, ui: SimpleNamespace) -> None:
    with gr.Column():
        ui.slider = gr.ImageSlider(label="Picture (left), edit (right)", buttons=["download"], visible=False)
        ui.gallery = gr.Gallery(label="Variants", columns=4, height=160, allow_preview=False, visible=False)
        ui.why = gr.Markdown()
        ui.word = gr.Radio([], label="Where does the model look for a word?", visible=False)
        ui.heat = gr.Image(label="Its attention", format="png", buttons=[], visible=False)
        with gr.Accordion("Export", open=False):
            ui.files = gr.File(label="The edit (its prompt and settings are inside) and the inversion")
            again = "The command that makes the same picture"
            ui.command = gr.Textbox("", label=again, buttons=["copy"], lines=3)
            ui.settings = gr.Textbox("", label="Settings", lines=6, max_lines=12)


def _wire(gr: Any, page: Any, ui: SimpleNamespace, loading: Future[Actions]) -> None:
    inputs = {name: getattr(ui, name) for name in INPUTS}
    outputs = [part for name, part in vars(ui).items() if name != "sheet"]

    def update(part: Any, change: Any) -> Any:
        """What begins hidden is there while it has something to show."""
        if isinstance(change, dict):
            return gr.update(**change)
        return change if part.visible else gr.update(value=change, visible=bool(change))

    def on(event: Any, action: str, picks: bool = False, **options: Any) -> None:
        run = guard(lambda: getattr(loading.result(), action), inputs, ui, update)
        run.__annotations__ = {"event": gr.SelectData} if picks else {}
        options = {"show_progress": "hidden", "api_visibility": "private", **options}
        event(run, set(inputs.values()), outputs, **options)

    device: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}  # who waits sees the queue
    device |= {"show_progress": "minimal", "show_progress_on": ui.status}
    on(page.load, "begin", concurrency_limit=None)
    on(ui.file.upload, "look")
    on(ui.examples.select, "example", picks=True)
    for event in (ui.crop.input, ui.left.release, ui.top.release, ui.side.release):
        on(event, "crop")
    for name in ("invert", "go_on", "edit", "compare"):
        on(getattr(ui, name).click, name, **device)
    on(ui.stop.click, "stop", queue=False)
    on(ui.open.input, "open")
    on(ui.where.input, "place")
    on(ui.brush.input, "painted")
    on(ui.wanted.submit, "edit", **device)
    on(ui.gallery.select, "choose", picks=True)
    on(ui.word.input, "attend", **device)
    on(ui.past.select, "take_up", picks=True)
