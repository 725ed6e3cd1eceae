"""Whatever computes: chat models by name, embeddings, weights, and the journal of their calls. Knows no task."""
