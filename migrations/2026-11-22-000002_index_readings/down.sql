DROP INDEX readings_by_sensor;
