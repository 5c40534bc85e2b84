"""``python -m openwork``, the command line for launchers that start modules."""

import sys

from openwork.cli import main

if __name__ == "__main__":
    sys.exit(main())
