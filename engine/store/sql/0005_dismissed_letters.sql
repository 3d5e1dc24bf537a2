-- A person has looked at a dead letter and dealt with what it was about: it alarms no longer.
ALTER TABLE dead_letters ADD COLUMN dismissed_at timestamptz;
