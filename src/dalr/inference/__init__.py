"""Using a trained model: vectors of files of any size, and search in them."""
