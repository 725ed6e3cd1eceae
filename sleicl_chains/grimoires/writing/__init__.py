"""What the strong model is asked, and the checks of what it replies."""
