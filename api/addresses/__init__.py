"""Where buyers want their parcels."""
