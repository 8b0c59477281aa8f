"""Generators of candidates, one a file, behind one protocol."""
