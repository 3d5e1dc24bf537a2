-- Mails to be sent.
SELECT 1;
