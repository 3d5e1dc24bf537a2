-- When the provider was last asked about a payment, and when it was last told to charge. Apart from
-- updated_at, which is when something was heard: what is never answered must not be asked first forever.
ALTER TABLE payments ADD COLUMN asked_at timestamptz, ADD COLUMN tried_at timestamptz;
