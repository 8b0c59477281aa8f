"""Code (not data files): the log contract, readers, checks, labels, features and the simulator.

Produced files live under ``$WATCHNEXT_HOME``; this package imports nothing else of ours and no TensorFlow.
"""
