"""The heads: what an objective's raw outputs mean, what their error costs, how they start."""
