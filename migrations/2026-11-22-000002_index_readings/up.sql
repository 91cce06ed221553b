-- The latest reading of each sensor is what is asked for.
CREATE INDEX readings_by_sensor ON readings (sensor, id DESC);
