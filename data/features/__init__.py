"""The feature spec: one implementation computes features for training, evaluation and serving."""
