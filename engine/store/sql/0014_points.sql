-- Points: an append-only ledger and the balances it adds up to.
SELECT 1;
