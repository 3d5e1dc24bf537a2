"""What things cost: money, promotions and points as arithmetic. Does no I/O at all."""
