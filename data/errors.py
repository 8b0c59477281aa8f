"""Errors whose text is meant for the person at the console."""


class WatchNextError(Exception):
    """Something a user can mend. The text says what was expected, what came and where; no traceback is shown."""


class ConfigError(WatchNextError):
    """The configuration is wrong, or does not fit the logs."""


class LogError(WatchNextError):
    """The logs are missing, damaged or mostly bad."""


class BundleError(WatchNextError):
    """A bundle is missing, damaged or of another specification."""
