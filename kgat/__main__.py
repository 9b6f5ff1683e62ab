r"""``python -m kgat``: the command line."""

import sys

from kgat.cli import main

sys.exit(main())
