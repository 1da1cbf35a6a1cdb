"""Training: one module of student, heads and objective under one trainer, in one run folder."""
