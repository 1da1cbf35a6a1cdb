"""How published DALR checkpoints become models and heads of ours."""
