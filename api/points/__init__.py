"""Points: earned by paying, spent at checkout. The ledger itself lives in 0014_points.sql."""
