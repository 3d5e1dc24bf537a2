-- Mails to send, in the transaction of what they tell. Taken with FOR UPDATE SKIP LOCKED.
CREATE TABLE mails (
    mail_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind       text NOT NULL,                            -- names the template
    recipient  text NOT NULL,
    language   text NOT NULL,
    content    jsonb NOT NULL,                           -- what the template tells; emptied once a server has it
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'sent', 'failed')),
    attempts   integer NOT NULL DEFAULT 0,
    due_at     timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    ended_at   timestamptz                               -- sent or given up
);
CREATE INDEX mails_due ON mails (due_at) WHERE state = 'waiting';
CREATE INDEX mails_of_recipient ON mails (lower(recipient), created_at);  -- no mailbox is flooded
CREATE INDEX mails_ended ON mails (ended_at) WHERE state <> 'waiting';
CREATE INDEX mails_failed ON mails (mail_id) WHERE state = 'failed';

-- How far the order mails have read the events; see 0008 on `written_by`.
CREATE TABLE order_mails (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    written_by xid8 NOT NULL,
    event_id   bigint NOT NULL
);
INSERT INTO order_mails (written_by, event_id) VALUES ('0', 0);
