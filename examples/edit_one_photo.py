"""Inverts one photograph and edits it, without the command line and without Lightning.

python examples/edit_one_photo.py sheep.jpg "a photo of a white horse" horse.png
"""

import sys

from nulltext import Backbone, edit, invert
from nulltext.pictures import to_image


def main(photo: str, prompt: str, out: str, model: str = "farmyard") -> None:
    """Writes the edited photograph to ``out``."""
    backbone = Backbone.from_pretrained(model)
    inversion = invert(backbone, photo)
    print(f"{photo} came back at {inversion.psnr:.1f} dB")
    edited = edit(backbone, inversion, prompt)
    to_image(edited.results[0].picture).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
