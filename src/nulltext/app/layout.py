"""What is on the page, and which of the actions each part of it starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nulltext.app.actions import Actions
from nulltext.app.desk import Desk
from nulltext.app.dials import LAYOUT, MORE, STRENGTH, VARIANTS, WHERE, WORDS
from nulltext.app.guard import guard
from nulltext.app.inverting import BOX, CROPS, Sheet, say

NO_INPUTS = (
    "tabs status box preview examples inverted fidelity invert stop go_on edit slider gallery why heat files settings "
    "compare compared table past"
).split()
"""The parts of the page whose values no action needs."""
CSS = Path(__file__).parent / "static" / "page.css"


def build(desk: Desk, examples: list[Path]) -> Any:
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
                ui.wanted = gr.Textbox(label="What it is to show", info="Change words of the prompt.")
                ui.edit = gr.Button("Edit", variant="primary")
                with gr.Row():
                    _result(gr, ui)
                    _dials(gr, ui)
            with gr.Tab("Compare", id="compare"):
                _compare(gr, ui)
            with gr.Tab("History", id="history"):
                gr.Markdown(
                    "The edits of the open picture. Choose one to take it up again with all its settings."
                )
                ui.past = gr.Gallery(
                    label="Edits", columns=4, allow_preview=False, format="png", visible=False
                )
        ui.status = gr.HTML(say("The model is loading."), elem_id="status")
        for name, part in vars(ui).items():
            part.elem_id = part.elem_id or name
        _wire(gr, page, ui, Actions(desk, examples))
    return page


def _picture(gr: Any, ui: SimpleNamespace, examples: list[Path]) -> None:
    with gr.Column():
        ui.file = gr.File(label="Drop a picture here, or choose one", height=120)
        shown = [str(path) for path in examples]
        ui.examples = gr.Gallery(
            shown, label="Or take an example", columns=4, height=150, allow_preview=False, interactive=False
        )
        ui.preview = gr.Image(
            label="What the model sees of it", interactive=False, format="png", buttons=[], visible=False
        )
        ui.crop = gr.Radio([*CROPS, BOX], value=next(iter(CROPS)), label="Crop")
        with gr.Row(visible=False) as ui.box:
            ui.left = gr.Slider(0, 100, 50, step=1, label="From the left, %")
            ui.top = gr.Slider(0, 100, 50, step=1, label="From the top, %")
            ui.side = gr.Slider(10, 100, 60, step=1, label="Size, %")
    with gr.Column():
        ui.prompt = gr.Textbox(
            label="What it shows", info="As exactly as you can: its words are what you edit."
        )
        ui.method = gr.Dropdown(["null_text"], label="Method", info="How the picture is made reproducible.")
        with gr.Row():
            ui.invert = gr.Button("Invert", variant="primary")
            ui.stop = gr.Button("Stop")
            ui.go_on = gr.Button("Go on", visible=False)
        ui.fidelity = gr.Markdown()
        ui.inverted = gr.ImageSlider(
            label="The picture (left), its reconstruction (right)", format="png", buttons=[], visible=False
        )
        ui.open = gr.Dropdown([], label="Or open a run", info="What fit or this page inverted before.")


def _dials(gr: Any, ui: SimpleNamespace) -> None:
    with gr.Column():
        ui.variants = gr.Radio(list(VARIANTS), value=next(iter(VARIANTS)), label="How many")
        ui.strength = gr.Radio(list(STRENGTH), value=next(iter(STRENGTH)), label="How strong")
        ui.layout = gr.Radio(list(LAYOUT), value=next(iter(LAYOUT)), label="How much of the layout stays")
        ui.where = gr.Radio(list(WHERE), value=next(iter(WHERE)), label="Where")
        ui.blend_words = gr.Textbox(
            label=WORDS, info="Words of either prompt, with commas between.", visible=False
        )
        with gr.Accordion("The mask: see it, paint on it", open=True):
            body, script = (CSS.with_name(name).read_text("utf-8") for name in ("brush.html", "brush.js"))
            ui.brush = gr.HTML("", html_template=body, js_on_load=script, picture="", apply_default_css=False)
        with gr.Accordion("More dials", open=False):
            for name in MORE:
                setattr(ui, name, gr.Textbox(label=name, placeholder="as suits"))


def _result(gr: Any, ui: SimpleNamespace) -> None:
    with gr.Column():
        ui.slider = gr.ImageSlider(
            label="The picture (left), the edit (right)", format="png", buttons=["download"], visible=False
        )
        ui.gallery = gr.Gallery(
            label="Variants", columns=4, height=160, allow_preview=False, format="png", visible=False
        )
        ui.why = gr.Markdown()
        ui.word = gr.Radio([], label="Where does the model look for a word?", visible=False)
        ui.heat = gr.Image(label="Its attention", interactive=False, format="png", visible=False, buttons=[])
        with gr.Accordion("Export", open=False):
            ui.files = gr.File(label="The edit (its prompt and settings are inside) and the inversion")
            ui.command = gr.Textbox(
                label="The command that makes the same picture", buttons=["copy"], lines=3
            )
            ui.settings = gr.Textbox(label="Settings", lines=6, max_lines=12)


def _compare(gr: Any, ui: SimpleNamespace) -> None:
    gr.Markdown("Inverts the open picture by several methods, and edits it after each.")
    ui.methods = gr.CheckboxGroup([], label="Methods")
    ui.both = gr.Textbox(label="An edit to compare as well", info="May be empty.")
    ui.compare = gr.Button("Compare", variant="primary")
    ui.compared = gr.Gallery(
        label="Side by side", columns=4, allow_preview=False, format="png", visible=False
    )
    ui.table = gr.Markdown()


def _wire(gr: Any, page: Any, ui: SimpleNamespace, does: Actions) -> None:
    inputs = {name: part for name, part in vars(ui).items() if name not in NO_INPUTS}
    outputs = [part for name, part in vars(ui).items() if name != "sheet"]

    def on(event: Any, action: Any, picks: bool = False, **options: Any) -> None:
        run = guard(action, inputs, ui, gr.SelectData if picks else None)
        options = {"show_progress": "hidden", "api_visibility": "private", **options}
        event(run, set(inputs.values()), outputs, **options)

    device: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}  # who waits sees the queue
    device |= {"show_progress": "minimal", "show_progress_on": ui.status}
    on(page.load, does.begin, concurrency_limit=None)
    on(ui.file.upload, does.look)
    on(ui.examples.select, does.example, picks=True)
    on(ui.crop.input, does.crop)
    for slider in (ui.left, ui.top, ui.side):
        on(slider.release, does.crop)
    on(ui.invert.click, does.invert, **device)
    on(ui.go_on.click, does.go_on, **device)
    on(ui.stop.click, does.stop, queue=False)
    on(ui.open.input, does.open)
    on(ui.where.input, does.place)
    on(ui.brush.input, does.painted)
    on(ui.edit.click, does.edit, **device)
    on(ui.wanted.submit, does.edit, **device)
    on(ui.gallery.select, does.choose, picks=True)
    on(ui.word.input, does.attend, **device)
    on(ui.compare.click, does.compare, **device)
    on(ui.past.select, does.take_up, picks=True)
