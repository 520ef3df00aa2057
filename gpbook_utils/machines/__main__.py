"""``python -m gpbook_utils.machines``: this machine's fingerprint, or a command in other environments."""

import sys

from gpbook_utils.machines.machine import main

sys.exit(main())
