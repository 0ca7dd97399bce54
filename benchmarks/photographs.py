"""Photographs to try an inversion on, from scikit-image, as a folder that ``fit`` reads.

python benchmarks/photographs.py photographs
python main.py fit --config nulltext.yaml --data.image photographs
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from measuring import in_one_line
from subjects import PHOTOGRAPHS, check_installed

from nulltext.files import write_text
from nulltext.pixels import save_png


def work(folder: Path) -> None:
    """Writes the pictures and their prompts."""
    check_installed("skimage")
    from PIL import Image
    from skimage import data

    for name in PHOTOGRAPHS:
        save_png(folder / f"{name}.png", Image.fromarray(getattr(data, name)()))
    rows = [{"file_name": f"{name}.png", "prompt": prompt} for name, prompt in PHOTOGRAPHS.items()]
    write_text(folder / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    print(f"{len(rows)} photographs in {folder}")


if __name__ == "__main__":
    sys.exit(in_one_line(partial(work, Path(sys.argv[1]))))
