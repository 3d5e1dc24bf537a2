-- Other systems that are told of events, and the deliveries.
SELECT 1;
