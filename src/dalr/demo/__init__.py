"""The demo: the whole path, offline, on a small generated world."""
