"""Shows sales with their live stock."""
