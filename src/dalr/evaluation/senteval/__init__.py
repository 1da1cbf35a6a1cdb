"""Logistic regression over frozen vectors, as SentEval fits it and as a solver does."""
