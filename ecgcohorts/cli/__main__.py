"""`python -m ecgcohorts.cli`."""

from ecgcohorts.cli.program import main

main()
