"""`wtie`, and `python -m tyro_cli`: a start that an early Ctrl-C does not turn into a traceback."""

import gc
import sys


def main() -> int:
    """Import the commands and run one; return its exit code."""
    gc.disable()  # nothing that an import makes is garbage: to look for it is a sixth of our start
    try:
        from tyro_cli.cli.app import main as run
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    gc.freeze()
    gc.enable()
    return run()


if __name__ == "__main__":
    sys.exit(main())
