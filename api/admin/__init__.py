"""What operators do: create and steer sales, restock, refund, read the audit log."""
