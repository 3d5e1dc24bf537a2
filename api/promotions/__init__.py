"""Promotions and coupons: what operators offer, what buyers redeem. api/pricing does the arithmetic."""
