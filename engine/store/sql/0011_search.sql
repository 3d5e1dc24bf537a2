-- What is searched: one row per product and the words in it.
SELECT 1;
