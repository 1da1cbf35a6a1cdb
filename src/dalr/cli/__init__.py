"""The command line, one file per group of commands; `main` is the entry point."""

from dalr.cli.app import main

__all__ = ["main"]
