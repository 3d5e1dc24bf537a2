"""Shows buyers their orders and cancels them."""
