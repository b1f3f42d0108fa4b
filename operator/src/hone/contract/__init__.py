"""What operator and trainer exchange: the run's configuration, plan, progress, results and exit codes.

It imports pydantic and nothing else, so that both images can contain it. `VERSION` is written into every
message; a reader accepts its own version and the one before it.
"""

VERSION = 1
