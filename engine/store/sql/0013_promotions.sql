-- Promotions, coupons and what was redeemed.
SELECT 1;
