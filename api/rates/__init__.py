"""Exchange rates as data with a date."""
