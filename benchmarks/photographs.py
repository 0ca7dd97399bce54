"""Photographs to try an inversion on, from scikit-image, as a folder that ``fit`` reads.

python benchmarks/photographs.py photographs
python main.py fit --config nulltext.yaml --data.image photographs
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from subjects import PHOTOGRAPHS, check_installed

from nulltext.errors import UserError
from nulltext.files import write_atomically


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pictures and their prompts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(arguments).folder
    try:
        check_installed("skimage")
    except UserError as error:
        print(f"photographs: error: {error}", file=sys.stderr)
        return 2
    from PIL import Image
    from skimage import data

    rows = []
    for name, prompt in PHOTOGRAPHS.items():
        picture = Image.fromarray(getattr(data, name)())
        write_atomically(folder / f"{name}.png", lambda p, picture=picture: picture.save(p, "PNG"))
        rows.append(json.dumps({"file_name": f"{name}.png", "prompt": prompt}) + "\n")
    write_atomically(folder / "metadata.jsonl", lambda p: p.write_text("".join(rows)))
    print(f"{len(rows)} photographs in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
