"""``python -m flows.cli`` is ``lake``."""

from __future__ import annotations

import sys

from flows.cli.entry import main

sys.exit(main())
