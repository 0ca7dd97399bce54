"""Inverts one photograph and edits it, without the command line and without Lightning.

python examples/edit_one_photo.py sheep.jpg "a photo of a white horse" horse.png
"""

import sys
from pathlib import Path

from nulltext import DiffusionModel, edit, invert
from nulltext.pixels import save_png


def main(photo: str, prompt: str, out: str, pretrained: str = "farmyard") -> None:
    """Writes the edited photograph to ``out``."""
    model = DiffusionModel.from_pretrained(pretrained)
    inversion = invert(model, photo)
    print(f"{photo}: the reconstruction has {inversion.psnr:.1f} dB")
    edited = edit(model, inversion, prompt)
    save_png(Path(out), edited.results[0].picture, {"prompt": prompt})


if __name__ == "__main__":
    main(*sys.argv[1:])
