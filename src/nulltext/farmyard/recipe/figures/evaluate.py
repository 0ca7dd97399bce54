"""`evaluate`: measure a farmyard model, print its figures, write them into its card."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltext.farmyard.recipe.card import write_card
from nulltext.farmyard.recipe.figures.measures import MEASURES, Figure, Run
from nulltext.farmyard.recipe.figures.subject import Subject
from nulltext.files import write_atomically


def evaluate(
    pretrained: str,
    out: Path,
    sections: Sequence[str] = tuple(MEASURES),
    *,
    clip: Path | None = None,
    quick: bool = False,
    card: bool = False,
    device: str = "cpu",
) -> list[Figure]:
    """Measure a farmyard model and print its figures as a Markdown table.

    Args:
        pretrained: farmyard, or a folder that `train` has exported.
        out: Where `figures.json` and the pictures to look at go. Figures of other sections there stay.
        sections: Keys of `MEASURES`.
        clip: Folder of the CLIP that judges; by default the model's own.
        quick: Take a tenth of the pictures.
        card: Write the table into the folder's model card, too.
        device: Where the model computes.

    Returns:
        The figures just measured.

    Raises:
        UserError: There is no such model, or no CLIP for it.
    """
    run = Run(Subject(pretrained, clip, device), out, quick)
    figures: list[Figure] = []
    print("| | measured | target | |\n|---|---|---|---|")
    for section in sections:
        for figure in MEASURES[section](run):
            figures.append(figure)
            print(line(figure), flush=True)
    known = _read(out / "figures.json")
    known.update({figure.name: [figure.value, figure.unit, figure.bar] for figure in figures})
    write_atomically(out / "figures.json", lambda path: _write(path, known))
    if card:
        write_card(run.subject.folder, [line(Figure(name, *rest)) for name, rest in known.items()])
    return figures


def line(figure: Figure) -> str:
    """A figure as a row of the table."""
    digits = 3 if not figure.unit else 2
    target = figure.bar.replace(">=", "at least").replace("<=", "at most")
    verdict = "" if not figure.bar else "met" if figure.met else "**short**"
    return f"| {figure.name} | {figure.value:.{digits}f} {figure.unit} | {target} | {verdict} |"


def _read(path: Path) -> dict[str, list[Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(path: Path, figures: dict[str, list[Any]]) -> None:
    path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
