"""What paired runs of two arms allow one to say, as pure functions of their scores. Nothing here reads a file."""
