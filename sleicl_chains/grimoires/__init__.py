"""The strong side: drawing examples, having grimoires written, and the library that keeps and finds them."""
