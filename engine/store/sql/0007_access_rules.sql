-- Whom operators let in or keep out, whatever the throttles and the anti-bot checks say.
-- Rules that are over are deleted when the next one is made; the audit log keeps them.
CREATE TABLE access_rules (
    rule_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,  -- grows with every change
    subject    text NOT NULL CHECK (subject ~ '^(user|address):.'),
    verdict    text NOT NULL CHECK (verdict IN ('allow', 'deny')),
    sale_id    text REFERENCES sales,                            -- null: every sale
    reason     text NOT NULL,
    actor      text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,                                      -- null: until removed
    CHECK (created_at < expires_at),
    UNIQUE NULLS NOT DISTINCT (subject, sale_id)
);
