"""`python -m termproxy` is the `termproxy` command."""

from termproxy.cli import main

if __name__ == "__main__":
    main()
