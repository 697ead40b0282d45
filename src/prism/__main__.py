"""`python -m prism` is `prism`."""

import sys

from prism.cli import main

if __name__ == "__main__":
    sys.exit(main())
