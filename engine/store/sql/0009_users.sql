-- Sessions, addresses, one-time links and logins with other providers.
ALTER TABLE users
    ALTER COLUMN email DROP NOT NULL,                    -- other providers need not tell one
    ALTER COLUMN password_hash DROP NOT NULL,            -- null: logs in with another provider
    ADD COLUMN email_verified_at timestamptz,
    ADD COLUMN language text NOT NULL DEFAULT 'en',      -- of mails
    ADD COLUMN blocked_at timestamptz,
    ADD COLUMN deleted_at timestamptz,                   -- the row stays: orders name it
    ADD COLUMN tokens_from bigint NOT NULL DEFAULT 0;    -- access tokens with an earlier `iat` are void
CREATE INDEX users_tokens_from ON users (tokens_from) WHERE tokens_from > 0;
CREATE INDEX users_by_time ON users (created_at, user_id);
CREATE INDEX users_email_prefix ON users (lower(email) text_pattern_ops);

-- One row per log-in. Of refresh tokens only SHA-256 is kept: who reads this logs in nowhere.
CREATE TABLE sessions (
    session_id    text COLLATE "C" PRIMARY KEY,
    user_id       text NOT NULL REFERENCES users ON DELETE CASCADE,
    refresh_hash  bytea NOT NULL,                        -- of the one that is good now
    previous_hash bytea,                                 -- of the one before, good for a retry
    rotated_at    timestamptz NOT NULL,
    by_cookie     boolean NOT NULL,
    user_agent    text NOT NULL,
    created_at    timestamptz NOT NULL,
    used_at       timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX sessions_of_user ON sessions (user_id, created_at);
CREATE INDEX sessions_expired ON sessions (expires_at);

-- Links that were mailed, good once.
CREATE TABLE user_links (
    token_hash bytea PRIMARY KEY,                        -- SHA-256
    user_id    text NOT NULL REFERENCES users ON DELETE CASCADE,
    purpose    text NOT NULL CHECK (purpose IN ('verify', 'reset')),
    email      text NOT NULL,                            -- where it went: proves that mailbox only
    expires_at timestamptz NOT NULL
);
CREATE INDEX user_links_of_user ON user_links (user_id, purpose);
CREATE INDEX user_links_expired ON user_links (expires_at);

-- Links that were asked for. Written whether or not the e-mail is known, so that the answer tells
-- nobody; the worker looks it up.
CREATE TABLE link_requests (
    request_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    purpose    text NOT NULL CHECK (purpose IN ('verify', 'reset')),
    email      text NOT NULL,
    at         timestamptz NOT NULL DEFAULT now()
);

-- Who a user is elsewhere. An issuer never gives a subject to another person.
CREATE TABLE identities (
    issuer    text NOT NULL,
    subject   text NOT NULL,
    user_id   text NOT NULL REFERENCES users ON DELETE CASCADE,
    linked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_of_user ON identities (user_id);

-- Logins that were sent to another provider and are not back yet. Each comes back once.
CREATE TABLE oauth_logins (
    state_hash   bytea PRIMARY KEY,
    browser_hash bytea NOT NULL,                         -- of the cookie that the same browser has
    nonce        text NOT NULL,
    verifier     text NOT NULL,                          -- RFC 7636
    return_to    text NOT NULL,
    wants_tokens boolean NOT NULL,
    expires_at   timestamptz NOT NULL
);
CREATE INDEX oauth_logins_expired ON oauth_logins (expires_at);

-- No foreign key: a storefront's own users have no row in `users`.
CREATE TABLE addresses (
    address_id  text COLLATE "C" PRIMARY KEY,
    user_id     text COLLATE "C" NOT NULL,
    name        text NOT NULL,
    phone       text NOT NULL,
    country     char(2) NOT NULL,                        -- ISO 3166-1 alpha-2
    region      text NOT NULL,
    city        text NOT NULL,
    street      text NOT NULL,
    postal_code text NOT NULL,
    is_default  boolean NOT NULL,
    created_at  timestamptz NOT NULL
);
CREATE INDEX addresses_of_user ON addresses (user_id, created_at);
CREATE UNIQUE INDEX addresses_default ON addresses (user_id) WHERE is_default;
