"""`python -m capezoo.cli`."""

import sys

from capezoo.cli.program import main

sys.exit(main())
