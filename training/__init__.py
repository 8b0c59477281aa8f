"""The offline pipeline: the day-by-day run, metrics, evaluation and reports. Imports ``data`` and ``models`` of ours."""
