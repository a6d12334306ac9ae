"""`python -m tyro_cli` is `wtie`."""

import sys

from tyro_cli.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
