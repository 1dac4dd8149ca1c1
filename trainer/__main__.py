"""`python -m trainer` is the `equipoise` command."""

from trainer.cli import main

if __name__ == "__main__":
    main()
