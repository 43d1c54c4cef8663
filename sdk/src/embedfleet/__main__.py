"""`python -m embedfleet`: the command line."""

from embedfleet.cli import main

if __name__ == "__main__":
    main()
