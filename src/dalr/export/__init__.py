"""How does a model leave dalr? As a graph without torch, as one model of text and images, with a card, to a hub."""
