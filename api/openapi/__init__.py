"""The HTTP contract as an OpenAPI document, made from the routes and their types."""
