"""The page in a real browser: ``pip install -e '.[apptest]'`` and a Chromium, then ``pytest -m slow tests/app``."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nulltext.farmyard.world import SHIPPED
from nulltext.inversion import METHODS
from nulltext.runs.finished import ARTIFACT

pytest.importorskip("gradio", reason="the page needs gradio: pip install -e '.[app]'")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[apptest]' drives the page")

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if BROWSER is None:
    pytest.importorskip("chromium", reason="there is no Chromium here to open the page in")

MAIN = Path(__file__).parents[2] / "main.py"
SHORT = ("--device", "cpu", "--model.steps", "4", "--model.inner_steps", "1")
SEED = 1_000_003  # of the scene that is inverted
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
RULES = {"runOnly": ["wcag2a", "wcag2aa"]}


class Server:
    """``python main.py app`` in a folder of its own."""

    def __init__(self, folder: Path, *words: str, short: Sequence[str] = SHORT) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.url = folder, f"http://127.0.0.1:{self.port}"
        command = [sys.executable, "-u", str(MAIN), "app", "--server_port", str(self.port), *short, *words]
        environment = {**os.environ, "no_proxy": "127.0.0.1"}
        with (folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from nulltext.farmyard.world.imagefolder import write_jpeg

    place = tmp_path_factory.mktemp("page")
    write_jpeg(place / "sheep.jpg", SEED)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    yield from visit(browser, server.url)


def visit(browser: Any, url: str, viewport: dict[str, int] = DESKTOP) -> Iterator[Any]:
    """A page that is ready; it fails where its scripts fail or where it asks another machine for anything."""
    context = browser.new_context(viewport=viewport)
    page, wrong = context.new_page(), list[str]()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda r: wrong.append(r.url) if not r.url.startswith((url, "data:", "blob:")) else None
    )
    page.goto(url)
    said(page, "is ready")
    yield page
    context.close()
    assert wrong == []


def said(page: Any, text: str, seconds: float = 120) -> str:
    """Waits for a text in the line at the foot of the page."""
    line = page.locator("#status p", has_text=text)
    line.wait_for(timeout=1000 * seconds)
    return str(line.inner_text())


def invert(page: Any, path: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(path)
    said(page, "then invert it")
    page.get_by_role("button", name="Invert", exact=True).click()
    said(page, "Inverted and saved")


def opened(page: Any) -> None:
    """Opens the first run of the list, and the tab to edit it in."""
    page.get_by_label("Or open a run").click()
    page.get_by_role("option").first.click()
    said(page, "is open")
    page.get_by_role("tab", name="Edit").click()


def edit(page: Any, prompt: str) -> float:
    """Edits; returns the seconds from the click to the picture."""
    page.get_by_label("What it is to show").fill(prompt)
    started = time.monotonic()
    page.get_by_role("button", name="Edit", exact=True).click()
    said(page, "Editing")
    said(page, "Done.")
    return time.monotonic() - started


def command(page: Any) -> str:
    page.get_by_role("button", name="Export").click()
    return str(page.locator("#command textarea").input_value())


def paint(page: Any) -> None:
    canvas = page.locator(".brush canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.4 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.6 * box["height"], steps=5)
    page.mouse.up()


def white(page: Any) -> float:
    """How much of the mask over the picture is painted, by the tint of the canvas against the picture's."""
    script = """() => { const c = document.querySelector(".brush canvas");
        return Array.from(c.getContext("2d").getImageData(0, 0, c.width, c.height).data) }"""
    pixels = np.asarray(page.evaluate(script), dtype=int).reshape(-1, 4)
    return float(pixels[:, :3].sum())


def test_the_page_opens_and_a_mistake_is_a_line(page: Any) -> None:
    page.get_by_role("button", name="Invert", exact=True).click()
    assert "Which picture?" in said(page, "Which picture?")
    page.get_by_role("tab", name="Edit").click()
    page.get_by_role("button", name="Edit", exact=True).click()
    said(page, "Invert one first")


@pytest.mark.slow
def test_upload_invert_edit_and_the_command_gives_the_same_picture(page: Any, folder: Path) -> None:
    invert(page, folder / "sheep.jpg")
    assert "bound" in page.locator("#fidelity").inner_text()
    page.get_by_role("tab", name="Edit").click()
    prompt = page.get_by_label("What it is to show").input_value()
    assert prompt == SHIPPED.caption(SHIPPED.random_scene(SEED))
    edit(page, "a photo of a gray horse in the forest")
    made = max(folder.glob("lightning_logs/*/sheep/edits/*.json"), key=lambda path: path.stat().st_mtime_ns)
    words = shlex.split(command(page))
    assert words[:3] == ["python", "main.py", "edit"]
    subprocess.run([sys.executable, str(MAIN), *words[2:]], cwd=folder, check=True, capture_output=True)
    again = made.with_name(f"{made.stem}-2.png")
    assert np.array_equal(np.asarray(Image.open(again)), np.asarray(Image.open(made.with_suffix(".png"))))
    with page.expect_download() as download:
        page.locator("#files a").first.click()
    assert Image.open(download.value.path()).text["prompt"] == "a photo of a gray horse in the forest"  # type: ignore[attr-defined]


@pytest.mark.slow
def test_brush_undo_variants_attention_and_history(page: Any, folder: Path) -> None:
    if not list(folder.glob("lightning_logs/*/sheep")):
        invert(page, folder / "sheep.jpg")
    page.reload()
    said(page, "is ready")
    opened(page)
    page.wait_for_function('document.querySelector(".brush canvas").width > 300')
    bare = white(page)
    paint(page)
    page.wait_for_function('document.querySelector("#where input:checked").value === "mask"')
    painted = white(page)
    assert painted != bare
    page.locator(".brush button", has_text="Undo").click()
    assert white(page) == bare
    edit_click = page.get_by_role("button", name="Edit", exact=True)
    edit_click.click()
    said(page, "nothing is painted")
    paint(page)
    page.wait_for_timeout(1000)
    page.get_by_label("Four draws").click()
    edit(page, "a photo of a horse in the forest")
    assert page.locator("#gallery button.thumbnail-item").count() == 4
    assert "--mask" in command(page) and "--seed 4" in page.locator("#command textarea").input_value()
    page.locator("#word label", has_text="horse").click()
    said(page, "Where it looks for 'horse'")
    page.get_by_role("tab", name="History").click()
    page.locator("#past button.thumbnail-item").last.click()
    said(page, "Taken up again")
    assert page.get_by_label("What it is to show").is_visible()


@pytest.mark.slow
def test_stop_keeps_what_is_done_and_goes_on(page: Any, folder: Path) -> None:
    page.locator("input[type=file]").first.set_input_files(folder / "sheep.jpg")
    said(page, "then invert it")
    page.get_by_role("button", name="Invert", exact=True).click()
    page.get_by_role("button", name="Stop").click()
    assert "lightning_logs" in said(page, "Stopped. What is done is in")
    page.get_by_role("button", name="Go on").click()
    said(page, "Inverted and saved")


@pytest.mark.slow
def test_a_page_that_is_closed_in_the_middle_loses_nothing(
    browser: Any, server: Server, folder: Path
) -> None:
    def runs() -> set[Path]:
        return set(folder.glob("lightning_logs/*"))

    before = runs()
    for page in visit(browser, server.url):
        page.locator("input[type=file]").first.set_input_files(folder / "sheep.jpg")
        said(page, "then invert it")
        page.get_by_role("button", name="Invert", exact=True).click()
        said(page, "Inverting")
    deadline = time.monotonic() + 60
    while not any((run / "sheep" / ARTIFACT).is_file() for run in runs() - before):
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
def test_compare_shows_the_costs_of_each_method(page: Any, folder: Path) -> None:
    if not list(folder.glob("lightning_logs/*/sheep")):
        invert(page, folder / "sheep.jpg")
        page.reload()
        said(page, "is ready")
    opened(page)
    page.get_by_role("tab", name="Compare").click()
    for name in METHODS:
        page.get_by_label(name, exact=True).set_checked(name in ("ddim", "direct"))
    page.get_by_label("An edit to compare as well").fill("a photo of a horse in the forest")
    page.get_by_role("button", name="Compare", exact=True).click()
    said(page, "Compared.", 300)
    assert page.locator("#table tbody tr").count() == 2
    assert page.locator("#compared button.thumbnail-item").count() == 5


@pytest.mark.slow
def test_bad_input_is_a_line_and_loses_nothing(page: Any, folder: Path) -> None:
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    page.locator("input[type=file]").first.set_input_files(folder / "torn.png")
    said(page, "torn.png")
    if not list(folder.glob("lightning_logs/*/sheep")):
        page.reload()
        invert(page, folder / "sheep.jpg")
        page.reload()
        said(page, "is ready")
    opened(page)
    page.get_by_label("What it is to show").fill(" ")
    page.get_by_role("button", name="Edit", exact=True).click()
    said(page, "Say what the picture is to show")
    page.get_by_role("button", name="More dials").click()
    page.get_by_label("guidance_scale").fill("strong")
    page.get_by_label("What it is to show").fill("a photo of a zebra")
    page.get_by_role("button", name="Edit", exact=True).click()
    said(page, "is no number")
    page.get_by_label("guidance_scale").fill("")
    edit(page, "a photo of a zebra")
    assert "does not know" in page.locator("#why").inner_text()


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_accessible_and_nothing_sticks_out(
    browser: Any, server: Server, folder: Path, viewport: dict[str, int]
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install -e '.[apptest]'")
    for page in visit(browser, server.url, viewport):
        if not list(folder.glob("lightning_logs/*/sheep")):
            invert(page, folder / "sheep.jpg")
            page.reload()
            said(page, "is ready")
        opened(page)
        edit(page, "a photo of a horse in the forest")
        for name in ("Export", "More dials"):
            page.get_by_role("button", name=name).click()
        for tab in ("Edit", "Picture", "Compare", "History"):
            page.get_by_role("tab", name=tab).click()
            page.wait_for_timeout(500)
            found = axe.Axe().run(page, options=RULES).response["violations"]
            assert [(v["id"], [node["html"] for node in v["nodes"]][:3]) for v in found] == []
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement !== document.body")


@pytest.mark.slow
def test_two_people_do_not_mix_and_a_restart_forgets_nothing(browser: Any, folder: Path) -> None:
    running = Server(folder)
    first, second = visit(browser, running.url), visit(browser, running.url)
    one, two = next(first), next(second)
    if not list(folder.glob("lightning_logs/*/sheep")):
        invert(one, folder / "sheep.jpg")
        one.reload()
        said(one, "is ready")
    opened(one)
    two.get_by_role("tab", name="Edit").click()
    two.get_by_role("button", name="Edit", exact=True).click()
    said(two, "Invert one first")  # what the other has open is not open here
    edit(one, "a photo of a cow in the forest")
    for visitors in (first, second):
        assert next(visitors, None) is None
    running.stop()
    running = Server(folder)
    for page in visit(browser, running.url):
        opened(page)
        page.get_by_role("tab", name="History").click()
        page.locator("#past button.thumbnail-item").first.click()
        said(page, "Taken up again")
        assert page.get_by_label("What it is to show").input_value() == "a photo of a cow in the forest"
    running.stop()


@pytest.mark.slow
def test_the_first_picture_within_20_seconds_and_an_edit_within_5(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    """With the settings that a person has by default; the seconds are printed by ``-rP``."""
    shutil.copy(folder / "sheep.jpg", tmp_path)
    started, seconds = time.monotonic(), dict[str, float]()
    running = Server(tmp_path, short=())
    page = browser.new_page()
    page.goto(running.url)
    page.wait_for_function("document.querySelector('#examples img')?.naturalWidth > 0")
    seconds["first picture"] = time.monotonic() - started
    said(page, "is ready")
    seconds["model loaded"] = time.monotonic() - started
    begun = time.monotonic()
    invert(page, tmp_path / "sheep.jpg")
    seconds["inversion"] = time.monotonic() - begun
    page.get_by_role("tab", name="Edit").click()
    seconds["first edit"] = edit(page, "a photo of a yellow cat in the snow next to a barn in the morning")
    seconds["second edit"] = edit(page, "a photo of a yellow cat on a meadow next to a barn in the morning")
    running.stop()
    print(", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()))
    assert seconds["first picture"] < 20 and seconds["second edit"] < 5


@pytest.mark.slow
def test_a_password_is_asked_for(browser: Any, tmp_path: Path) -> None:
    running = Server(tmp_path, "--password", "meadow")
    page = browser.new_page()
    page.goto(running.url)
    page.get_by_label("password").wait_for()
    assert page.get_by_role("button", name="Invert", exact=True).count() == 0
    running.stop()
