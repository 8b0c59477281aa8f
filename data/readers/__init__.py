"""Readers: from a team's files to chunks of rows, columns still as the source has them.

``files`` finds the files, ``table`` reads CSV, JSON lines and Parquet, ``convert`` turns columns into our types,
``kuairand`` knows one public data set's names and traps.
"""
