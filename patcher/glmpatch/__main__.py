"""``python -m glmpatch`` is the command ``glmpatch``."""

from glmpatch.command.cli import main

if __name__ == "__main__":
    main()
