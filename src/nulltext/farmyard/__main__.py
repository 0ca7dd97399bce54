"""`python -m nulltext.farmyard`: draw the farmyard's scenes, train its model, measure it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nulltext.errors import UserError
from nulltext.farmyard.world import HELD_OUT_SEEDS, SHIPPED, world_of
from nulltext.farmyard.world.imagefolder import write_imagefolder, write_jpeg
from nulltext.farmyard.world.worlds import WORLDS

SECTIONS = ("size", "vae", "clip", "generation", "inversion", "speed")


def make_parser() -> argparse.ArgumentParser:
    """The verbs and their options; `train` hands its own to Lightning."""
    parser = argparse.ArgumentParser(prog="python -m nulltext.farmyard", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser(
        "train",
        add_help=False,
        help="train one stage (--config configs/farmyard/128/vae.yaml ...), or all (--size 128) and export",
    )
    drawing = verbs.add_parser("draw", help="write drawn scenes with their captions, an imagefolder")
    drawing.add_argument(
        "to", type=Path, help="a folder; or NAME.jpg for one picture with its caption in its EXIF"
    )
    drawing.add_argument("--n", type=int, default=24, help="how many (default: %(default)s)")
    drawing.add_argument(
        "--seed", type=int, default=None, help="seed of the first; by default one never trained on"
    )
    drawing.add_argument(
        "--world", type=int, default=SHIPPED.size, choices=WORLDS, help="whose scenes (default: %(default)s)"
    )
    drawing.add_argument("--size", type=int, default=None, help="side in pixels (default: the world's)")
    measuring = verbs.add_parser("evaluate", help="print the figures of the model card, on held-out scenes")
    measuring.add_argument("--pretrained", default="farmyard", help="the shipped model, or a folder like it")
    measuring.add_argument(
        "--clip", type=Path, help="the CLIP that judges, where the model has none of its own"
    )
    measuring.add_argument(
        "--out", type=Path, default=Path("lightning_logs/farmyard/evaluation"), help="files go here"
    )
    measuring.add_argument(
        "--quick", action="store_true", help="a tenth of the pictures: a minute, rough figures"
    )
    measuring.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=SECTIONS, help="only these parts"
    )
    measuring.add_argument("--device", default="cpu", help="where the model computes (default: %(default)s)")
    measuring.add_argument("--card", action="store_true", help="write the figures into the model card, too")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run one verb.

    Args:
        args: The command line without the program; sys.argv by default.

    Returns:
        0, or 2 after an error that the user can mend, printed in one line.
    """
    words = list(sys.argv[1:] if args is None else args)
    try:
        if words[:1] == ["train"]:
            from nulltext.farmyard.recipe.train import train

            train(words[1:])
            return 0
        _run(make_parser().parse_args(words))
    except UserError as error:
        print(f"nulltext: error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.verb == "draw":
        _draw(options)
        return
    from nulltext.farmyard.recipe.figures.evaluate import evaluate

    evaluate(
        options.pretrained,
        options.out,
        options.sections,
        clip=options.clip,
        quick=options.quick,
        card=options.card,
        device=options.device,
    )


def _draw(options: argparse.Namespace) -> None:
    world = world_of(options.world)
    seed = HELD_OUT_SEEDS.start if options.seed is None else options.seed
    size = world.size if options.size is None else options.size
    if options.to.suffix.lower() in (".jpg", ".jpeg"):
        write_jpeg(options.to, seed, size, world)
    else:
        write_imagefolder(options.to, options.n, seed, size, world)


if __name__ == "__main__":
    sys.exit(main())
