"""`python -m polysafe`."""

from polysafe.cli import main

if __name__ == "__main__":
    main()
