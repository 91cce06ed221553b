-- What the sensors of a greenhouse have measured.
CREATE TABLE readings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sensor text NOT NULL,
    celsius double precision NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now()
);
