"""Search over the catalogue: words, index, queries, facets, suggestions."""
