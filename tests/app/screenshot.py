"""Takes the picture of the page after an edit: ``python tests/app/screenshot.py docs/figures/app.png``."""

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright
from test_page import BROWSER, Server, edit, invert, visit

from nulltext.farmyard.world.imagefolder import write_jpeg

SEED = 1_000_006
PROMPT = "a photo of an orange horse looking right on a sandy beach in the morning"  # it shows an elk


def main() -> None:
    """Inverts a scene with the shipped model under the default settings, edits it four times, and takes the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("to", type=Path, help="the PNG")
    parser.add_argument("--width", type=int, default=1280, help="of the window; a phone has 390")
    parser.add_argument("--height", type=int, default=1060)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, sync_playwright() as driver:
        picture = Path(place) / "elk.jpg"
        write_jpeg(picture, SEED)
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        running = Server(picture.parent, short=())
        try:
            for page in visit(browser, running.url, {"width": options.width, "height": options.height}):
                invert(page, picture)
                page.get_by_role("tab", name="Edit").click()
                page.get_by_label("Four draws").click()
                edit(page, PROMPT)
                page.wait_for_timeout(1000)  # until the pictures are drawn
                page.screenshot(path=options.to)
        finally:
            running.stop()


if __name__ == "__main__":
    main()
