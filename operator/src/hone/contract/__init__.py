"""What operator and trainer say to each other: the run's configuration, plan, progress, results and exit codes.

A leaf: it imports pydantic and nothing else, so that both images can carry it. `VERSION` is written into every
message; a reader accepts its own version and the one before it.
"""

VERSION = 1
