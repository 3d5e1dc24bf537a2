-- Reviews by buyers, replies, votes, and their sums.
SELECT 1;
