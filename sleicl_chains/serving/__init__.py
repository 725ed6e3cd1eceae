"""The doors through which answers go out: agents, files, other clients."""
