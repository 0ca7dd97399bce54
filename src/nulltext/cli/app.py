"""The verb ``app``: a page to edit in, on this machine."""

from __future__ import annotations

import hmac
import os
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nulltext.cli.parser import read_options
from nulltext.cli.words import find_value
from nulltext.errors import UserError
from nulltext.imports import no_collection

DESCRIPTION = (
    "Opens a page to invert and edit pictures in. Takes the options of fit as well, such as --config sd15.yaml,\n"
    "--model.pretrained FOLDER, --device cuda, --trainer.default_root_dir FOLDER."
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EXAMPLES = (1_000_003, 1_000_004, 1_000_006, 1_000_009)
"""Seeds of the scenes that are the page's examples."""
LARGEST_UPLOAD = "200mb"


@dataclass(frozen=True)
class Page:
    """Where the page opens.

    Args:
        server_name: The address to listen at. Any but this machine's own needs a password.
        server_port: The port.
        password: What people have to type before they see the page.
        share: Also opens a tunnel from gradio's servers to this page; needs a password.
        inbrowser: Opens the page in the browser.
    """

    server_name: str = "127.0.0.1"
    server_port: int = 7860
    password: str | None = None
    share: bool = False
    inbrowser: bool = False


def main(words: Sequence[str]) -> int:
    """Runs the ``app`` verb until it is stopped; returns 0.

    Raises:
        UserError: A password or gradio is missing, the port is taken, an option makes no sense.
    """
    own, rest = split(words)
    options = read_options(Page, own, "main.py app", DESCRIPTION)
    if not options.password and (options.share or options.server_name not in LOOPBACK):
        why = "--share" if options.share else f"--server_name {options.server_name}"
        raise UserError(f"{why} lets others see the page; give --password as well")
    check_port(options.server_name, options.server_port)
    host = f"[{options.server_name}]" if ":" in options.server_name else options.server_name
    print(f"nulltext: the page opens at http://{host}:{options.server_port} in a few seconds", flush=True)
    serve(options, rest)
    return 0


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the page's own options, each with its value, and those of ``fit``."""
    names = {f"--{field.name}" for field in fields(Page)}
    own, rest, left = list[str](), list[str](), list(words)
    while left:
        word = left.pop(0)
        name, equals, _ = word.partition("=")
        if name in ("-h", "--help"):
            own.append(word)
        elif name not in names:
            rest.append(word)
        elif equals:
            own.append(word)
        else:
            own.append(f"{word}={left.pop(0) if left and not left[0].startswith('--') else 'true'}")
    return own, rest


def check_port(name: str, port: int) -> None:
    """Refuses a port that cannot be listened at, before anything is loaded.

    Raises:
        UserError: It is taken, or the address is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot open the page at {name} port {port}: {reason}; give another --server_port, such as {port + 1}"
        ) from None


def serve(options: Page, words: Sequence[str]) -> None:
    """Opens the page, and loads the model meanwhile."""
    with tempfile.TemporaryDirectory(prefix="nulltext-app-") as place:
        os.environ |= {"GRADIO_TEMP_DIR": place, "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            with no_collection():
                import gradio as gr
        except ImportError:
            raise UserError("the page needs gradio: pip install 'nulltext[app]'") from None
        from nulltext.app.layout import STATIC, build, load

        root = Path(str(find_value(words, "trainer.default_root_dir") or ".")).expanduser()
        examples = draw_examples(Path(place))
        page = build(load(words, root, examples), examples)
        password = options.password
        auth: Any = password and (lambda _, given: hmac.compare_digest(given.encode(), password.encode()))
        page.queue(default_concurrency_limit=4).launch(
            server_name=options.server_name,
            server_port=options.server_port,
            auth=auth,
            auth_message="Any name, and the password that the page was started with.",
            share=options.share,
            inbrowser=options.inbrowser,
            quiet=True,
            css_paths=STATIC / "page.css",
            theme=_theme(gr),
            allowed_paths=[str(root / "lightning_logs")],
            max_file_size=LARGEST_UPLOAD,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
        )


def _theme(gr: Any) -> Any:
    """Gradio's, with fonts of this machine and with enough contrast (WCAG AA)."""
    plain = gr.themes.Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])
    faint = (
        "body_text_color_subdued",
        "block_info_text_color",
        "input_placeholder_color",
        "block_label_text_color",
    )
    dark = {"button_primary_background_fill": "*primary_700", "link_text_color": "*primary_700"}
    return plain.set(**dark, **dict.fromkeys(faint, "*neutral_600"), color_accent="*primary_700")


def draw_examples(folder: Path) -> list[Path]:
    """A few scenes of the farmyard, which say what they show."""
    from nulltext.farmyard.world.imagefolder import write_jpeg

    paths = [folder / f"scene-{seed}.jpg" for seed in EXAMPLES]
    for path, seed in zip(paths, EXAMPLES, strict=True):
        write_jpeg(path, seed)
    return paths
