"""`python -m groundup` is the command line."""

import sys

from groundup.cli import main

sys.exit(main())
