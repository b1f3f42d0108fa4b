"""`python -m hone.runtime`."""

import sys

from hone.runtime.main import main

sys.exit(main())
