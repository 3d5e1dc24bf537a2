"""Load generators. They speak HTTP only."""
