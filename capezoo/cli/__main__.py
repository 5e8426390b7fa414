"""`python -m capezoo.cli`."""

from capezoo.cli.program import main

main()
