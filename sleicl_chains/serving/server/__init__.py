"""The server of `sleicl serve`: recipes and the chat behind the APIs of OpenAI and Ollama."""
