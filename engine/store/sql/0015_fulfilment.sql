-- Shipping methods, shipments, tracking, returns and invoices.
SELECT 1;
