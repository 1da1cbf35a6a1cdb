"""Captions, text and scores: read, checked, tokenised once, and cut into batches."""
