"""``python -m openwork.cli``, for launchers that start modules."""

import sys

from openwork.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
