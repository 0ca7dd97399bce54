"""The front door: ``python main.py fit --config nulltext.yaml --data.image sheep.jpg``."""

import sys

from nulltext.cli import main

if __name__ == "__main__":
    sys.exit(main())
