-- Carts of users and of guests.
SELECT 1;
