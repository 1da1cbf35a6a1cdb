"""Reading and writing files: atomically, sealed, strictly."""
