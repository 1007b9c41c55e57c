"""``python -m patcher`` is the command ``glmpatch``."""

from patcher.cli import main

if __name__ == "__main__":
    main()
