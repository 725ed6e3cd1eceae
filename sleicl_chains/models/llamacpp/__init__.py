"""A GGUF file as a chat model inside this process (`embedded:`)."""
