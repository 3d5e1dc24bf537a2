"""The page that shows the HTTP contract to people."""
