"""Priorities of requests: 0 to 9, higher is built sooner. Light: the command line imports this."""

MIN_PRIORITY = 0
DEFAULT_PRIORITY = 5
MAX_PRIORITY = 9
