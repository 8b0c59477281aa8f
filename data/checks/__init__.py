"""Checks of the log, one a file. Each looks at a stretch of rows and says which are bad and why."""
