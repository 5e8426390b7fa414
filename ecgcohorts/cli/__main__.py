"""`python -m ecgcohorts.cli`."""

import sys

from ecgcohorts.cli.program import main

sys.exit(main())
