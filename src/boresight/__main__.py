"""`python -m boresight`."""

from boresight.cli.main import main

main()
