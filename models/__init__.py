"""Code (not data files): the networks, their training step, the bundle, its scorer and the registry.

Only the modules that build or train a network import TensorFlow; what the serving process imports
(:mod:`models.scorer`, :mod:`models.bundle`, :mod:`models.registry`, :mod:`models.indexes`) does not.
"""
