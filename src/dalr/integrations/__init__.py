"""The objective inside other people's training loops."""
