"""`python -m trainer` runs the command `equipoise`."""

from trainer.cli.typer_app import main

if __name__ == "__main__":
    main()
