"""What the user brings: task cards and rows, the splits of rows, the labels in replies."""
