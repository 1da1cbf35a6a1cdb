"""`python -m dalr`."""

from dalr.cli import main

main()
