"""What a run is made from: the schema of recipes, how they are read, checked, started from data, and shipped."""
