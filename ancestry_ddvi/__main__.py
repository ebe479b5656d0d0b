"""`python -m ancestry_ddvi` is the command `ancestry-ddvi`."""

from ancestry_ddvi.cli import main

if __name__ == "__main__":
    main()
