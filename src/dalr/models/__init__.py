"""Encoders: student and teachers as SentenceTransformers, the heads that only training uses."""
