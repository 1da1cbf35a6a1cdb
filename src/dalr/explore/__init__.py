"""What does a run find, and what does it get wrong? One or two runs looked at in a browser."""
