"""How far a long piece of work has come, told while it runs."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being answered (an arm or a prompt), the answers done and the answers to do, over all of them."""
