"""The field's evaluation, offline: scores of frozen sentence vectors."""
