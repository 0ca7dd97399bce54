"""What is on the page, which action each part of it starts, and how the page is told what came of it."""

from __future__ import annotations

import html
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

from nulltext.app.dials import CROPS, LAYOUT, MORE, PLAIN, STRENGTH, VARIANTS, WHERE
from nulltext.errors import told_of
from nulltext.imports import no_collection

STATIC = Path(__file__).parent / "static"
Changes: TypeAlias = dict[str, Any]
"""What an action changes: parts of the page by name, each with its new value, or a dict of its properties."""


@dataclass
class Sheet:
    """What one person has on the desk; nobody else sees it."""

    photo: tuple[str, Any] = ("", None)  # the file that was dropped, and its picture, decoded
    folder: Path | None = None  # of the open inversion
    again: list[str] = field(default_factory=list)  # the words that go on with a stopped run
    stop: bool = False
    mask: Path | None = None  # of the edit that was taken up, until the brush is used
    results: list[tuple[Path, str]] = field(default_factory=list)  # the variants of the last edit
    current: Path | None = None  # the one that is shown
    attention: dict[str, Any] = field(default_factory=dict)  # of its words, once looked at


def say(text: str, done: float | None = None, *, bad: bool = False) -> str:
    """The line at the foot of the page, with a bar where something is under way."""
    bar = "" if done is None else f'<progress value="{done:.3f}" aria-label="Done so far"></progress>'
    return f'<p role="status" class="{"bad" if bad else "good"}">{bar}{html.escape(text)}</p>'


def load(words: Sequence[str], root: Path, examples: list[Path]) -> Future[Any]:
    """Imports the libraries and loads the model, while the page is there already; who needs the actions waits."""
    loading: Future[Any] = Future()

    def work() -> None:
        try:
            with no_collection():
                from nulltext.app.actions import Actions, Desk
            loading.set_result(Actions(Desk(words, root), examples))
        except BaseException as error:  # whatever it is, the page says it
            loading.set_exception(error)

    threading.Thread(target=work, daemon=True).start()  # Ctrl-C does not wait for it
    return loading


def build(loading: Future[Any], examples: list[Path]) -> Any:
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
                    _editing(gr, ui)
            with gr.Tab("Compare", id="compare"):
                gr.Markdown("Inverts the open picture by several methods, and edits it after each.")
                ui.methods = gr.CheckboxGroup([], label="Methods")
                ui.both = gr.Textbox("", label="An edit to compare as well", info="May be empty.")
                ui.compare = gr.Button("Compare", variant="primary")
                ui.compared = gr.Gallery(label="Side by side", columns=4, allow_preview=False, visible=False)
                ui.table = gr.Markdown()
            with gr.Tab("History", id="history"):
                gr.Markdown("The edits of the open picture. Choose one to take it up again as it was.")
                ui.past = gr.Gallery(label="Edits", columns=4, allow_preview=False, visible=False)
        ui.status = gr.HTML(say("The model is loading."))
        for name, part in vars(ui).items():
            part.elem_id = name
        _wire(gr, page, ui, loading)
    return page


def _picture(gr: Any, ui: SimpleNamespace, examples: list[Path]) -> None:
    with gr.Column():
        ui.file = gr.File(label="Drop a picture here, or choose one", height=120)
        ui.examples = gr.Gallery(examples, label="Examples", columns=4, height=150, allow_preview=False)
        ui.preview = gr.Image(label="What the model sees of it", format="png", buttons=[], visible=False)
        ui.crop = gr.Radio(CROPS, value="center", label="Crop")
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
        ui.inverted = gr.ImageSlider(label="Picture left, reconstruction right", buttons=[], visible=False)
        ui.open = gr.Dropdown([], label="Or open a run", info="What fit or this page inverted before.")


def _editing(gr: Any, ui: SimpleNamespace) -> None:
    with gr.Column():
        ui.slider = gr.ImageSlider(label="Picture left, edit right", buttons=["download"], visible=False)
        ui.gallery = gr.Gallery(label="Variants", columns=4, height=160, allow_preview=False, visible=False)
        ui.why = gr.Markdown()
        ui.word = gr.Radio([], label="Where does the model look for a word?", visible=False)
        ui.heat = gr.Image(label="Its attention", format="png", buttons=[], visible=False)
        with gr.Accordion("Export", open=False):
            ui.files = gr.File(label="The edit (its prompt and settings are inside) and the inversion")
            ui.command = gr.Textbox("", label="The command that makes the same", buttons=["copy"], lines=3)
            ui.settings = gr.Textbox("", label="Settings", lines=6, max_lines=12)
    with gr.Column():
        ui.variants = gr.Radio(list(VARIANTS), value=PLAIN["variants"], label="How many")
        ui.strength = gr.Radio(STRENGTH, value=PLAIN["strength"], label="How strong")
        ui.layout = gr.Radio(LAYOUT, value=PLAIN["layout"], label="How much of the layout stays")
        ui.where = gr.Radio(WHERE, value=PLAIN["where"], label="Where")
        ui.blend_words = gr.Textbox("", label="At these words", info="With commas between.", visible=False)
        with gr.Accordion("The mask: see it, paint on it"):
            body, script = (STATIC.joinpath(f"brush.{kind}").read_text("utf-8") for kind in ("html", "js"))
            ui.brush = gr.HTML("", html_template=body, js_on_load=script, picture="", apply_default_css=False)
        with gr.Accordion("More dials", open=False):
            for name in MORE:
                setattr(ui, name, gr.Textbox("", label=name, placeholder="as suits"))


def _wire(gr: Any, page: Any, ui: SimpleNamespace, loading: Future[Any]) -> None:
    filled, others = gr.components.FormComponent, ("sheet", "file", "brush")
    inputs = {name: part for name, part in vars(ui).items() if isinstance(part, filled) or name in others}
    outputs = [part for name, part in vars(ui).items() if name != "sheet"]

    def update(part: Any, change: Any) -> Any:
        """What begins hidden is there while it has something to show."""
        if isinstance(change, dict):
            return gr.update(**change)
        return change if part.visible else gr.update(value=change, visible=bool(change))

    def on(event: Any, action: str, picks: bool = False, **options: Any) -> None:
        options.setdefault("show_progress", "hidden")
        run = guard(lambda: getattr(loading.result(), action), inputs, ui, update)
        run.__annotations__ = {"event": gr.SelectData} if picks else {}
        event(run, set(inputs.values()), outputs, api_visibility="private", **options)

    device: dict[str, Any] = {"concurrency_id": "device", "concurrency_limit": 1}  # who waits sees the queue
    device |= {"show_progress": "minimal", "show_progress_on": ui.status}
    on(page.load, "begin", concurrency_limit=None)
    on(ui.file.upload, "look")
    for part, action in ((ui.examples, "look"), (ui.gallery, "choose"), (ui.past, "take_up")):
        on(part.select, action, picks=True)
    for part, action in ((ui.open, "open"), (ui.crop, "crop"), (ui.where, "place"), (ui.brush, "painted")):
        on(part.input, action)
    for part in (ui.left, ui.top, ui.side):
        on(part.release, "crop")
    for action in ("invert", "go_on", "edit", "compare"):
        on(getattr(ui, action).click, action, **device)
    on(ui.wanted.submit, "edit", **device)
    on(ui.word.input, "attend", **device)
    on(ui.stop.click, "stop", queue=False)


def guard(
    find: Callable[..., Any], inputs: Mapping[str, Any], ui: SimpleNamespace, update: Callable[..., Any]
) -> Callable[..., Any]:
    """An action as gradio calls it. It goes on to its end where the page is closed meanwhile.

    It takes the inputs' values by name, the ``index`` that was picked, and ``show``, which changes the page at once.
    """

    def run(given: Mapping[Any, Any], event: Any = None) -> Iterator[dict[Any, Any]]:
        told: queue.Queue[Changes] = queue.Queue()
        g = SimpleNamespace(**{name: given[part] for name, part in inputs.items()})
        g.index, g.show = getattr(event, "index", None), lambda **changes: told.put(changes)

        def work() -> None:
            try:
                g.show(**find()(g))
            except BaseException as error:
                g.show(status=say(told_of(error), bad=True))
            g.show()

        threading.Thread(target=work, daemon=True).start()
        while changes := told.get():
            yield {getattr(ui, name): update(getattr(ui, name), value) for name, value in changes.items()}

    return run
