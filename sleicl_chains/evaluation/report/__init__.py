"""A finished run, read again and shown as a page."""
