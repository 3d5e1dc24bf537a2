"""What tests share: real servers, and sales to sell."""
