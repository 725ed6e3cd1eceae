"""Ollama, guarded: its server, its models as LangChain chat models, label scores and embeddings.

Ollama answers HTTP 200 where a prompt lost its front, a template dropped the system message or a
stream ended early. Here each of these is an error that says what helps. `server.py` sends and
`failures.py` explains what went wrong, `model.py` is the chat model, `options.py` makes the options of every
call, `rendering.py` makes sure that a prompt arrives and `replies.py` that a reply is whole, `scoring.py` reads
label probabilities, `installed.py` says what is there and `check.py` what is off.
"""
