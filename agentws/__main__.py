"""`python -m agentws`."""

import sys

from agentws.cli import main

sys.exit(main())
