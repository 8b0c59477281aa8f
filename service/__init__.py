"""The HTTP API. Imports ``data`` and ``models`` of ours, never ``training``, and never loads TensorFlow."""
