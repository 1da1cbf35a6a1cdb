"""How is an encoder asked over HTTP? Embeddings as OpenAI's API has them, search, health and metrics."""
