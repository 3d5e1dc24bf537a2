-- Waiting rooms: what operators set, and what must not go back if Redis loses a room.
-- A sale without a row has no room.
CREATE TABLE sale_rooms (
    sale_id           text PRIMARY KEY REFERENCES sales,
    revision          bigint NOT NULL DEFAULT 1,         -- counts changes of the settings
    is_on             boolean NOT NULL,
    served_in         text NOT NULL CHECK (served_in IN ('fifo', 'draw')),
    prequeue_seconds  integer NOT NULL CHECK (prequeue_seconds >= 0),
    pace_max          integer CHECK (pace_max > 0),      -- people/s; null: what the engine can store
    over_admission    double precision NOT NULL CHECK (over_admission >= 1),
    admission_seconds integer NOT NULL CHECK (admission_seconds > 0),
    absent_seconds    integer NOT NULL CHECK (absent_seconds > 0),
    proof_difficulty  integer NOT NULL CHECK (proof_difficulty >= 0),
    captcha           boolean NOT NULL,
    -- Secret until the draw. Its SHA-256 is public from the start: nobody can choose another later.
    seed              bytea NOT NULL CHECK (octet_length(seed) = 32),
    -- As of a second ago at most; Redis counts.
    issued            bigint NOT NULL DEFAULT 0,
    serving           bigint NOT NULL DEFAULT 0,
    drawn             bigint                             -- numbers up to it were drawn; null: not yet
);
