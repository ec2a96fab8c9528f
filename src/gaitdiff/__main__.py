"""``python -m gaitdiff`` is the command line."""

import sys

from gaitdiff.cli import main

sys.exit(main())
