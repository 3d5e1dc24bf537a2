-- Sessions, addresses, one-time links and logins with other providers.
SELECT 1;
