-- What the buyer has to do to pay, and statements of providers.
SELECT 1;
