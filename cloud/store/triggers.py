"""Triggers of each database.

They keep the counts in the transaction of every change of the verdicts, in retention too, and refuse to change labels
and the audit log. SQLite runs them for each row, PostgreSQL for each statement where it can. On PostgreSQL they also
delete the other rows of a deleted sample: a foreign key to a partitioned table would be checked row by row, and a
partition that one refers to could not be dropped without reading it.
"""

_SQLITE = (
    """CREATE TRIGGER count_new_verdict AFTER INSERT ON verdicts BEGIN
  INSERT INTO verdict_counts (device_id, modality, route, decision, verdicts)
    VALUES (NEW.device_id, NEW.modality, NEW.route, NEW.decision, 1), ('', NEW.modality, NEW.route, NEW.decision, 1)
    ON CONFLICT DO UPDATE SET verdicts = verdicts + 1;
  INSERT INTO sources (source_key, device_id) VALUES (lower(NEW.source_id), NEW.device_id) ON CONFLICT DO NOTHING;
END""",
    """CREATE TRIGGER count_removed_verdict AFTER DELETE ON verdicts BEGIN
  UPDATE verdict_counts SET verdicts = verdicts - 1
    WHERE device_id IN (OLD.device_id, '') AND modality = OLD.modality AND route = OLD.route
      AND decision = OLD.decision;
END""",
    """CREATE TRIGGER keep_label BEFORE UPDATE ON labels BEGIN
  SELECT RAISE(ABORT, 'labels are append-only');
END""",
    """CREATE TRIGGER keep_audit_entry BEFORE UPDATE ON audit_log BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END""",
    """CREATE TRIGGER keep_audit_log BEFORE DELETE ON audit_log BEGIN
  SELECT RAISE(ABORT, 'the audit log is append-only');
END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION count_new_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO verdict_counts AS counted (device_id, modality, route, decision, verdicts)
    SELECT device_id, modality, route, decision, count(*) FROM added GROUP BY device_id, modality, route, decision
    UNION ALL SELECT '', modality, route, decision, count(*) FROM added GROUP BY modality, route, decision
    ON CONFLICT (device_id, modality, route, decision) DO UPDATE SET verdicts = counted.verdicts + EXCLUDED.verdicts;
  INSERT INTO sources (source_key, device_id) SELECT DISTINCT lower(source_id), device_id FROM added
    ON CONFLICT DO NOTHING;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION count_removed_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE verdict_counts AS counted SET verdicts = counted.verdicts - gone.verdicts
    FROM (
      SELECT device_id, modality, route, decision, count(*) AS verdicts FROM removed
        GROUP BY device_id, modality, route, decision
      UNION ALL SELECT '', modality, route, decision, count(*) FROM removed GROUP BY modality, route, decision
    ) AS gone
    WHERE (counted.device_id, counted.modality, counted.route, counted.decision)
      = (gone.device_id, gone.modality, gone.route, gone.decision);
  RETURN NULL;
END $$""",
    """CREATE TRIGGER count_new_verdict AFTER INSERT ON verdicts
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION count_new_verdicts()""",
    """CREATE TRIGGER count_removed_verdict AFTER DELETE ON verdicts
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION count_removed_verdicts()""",
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% append-only', TG_ARGV[0];
END $$""",
    """CREATE TRIGGER keep_label BEFORE UPDATE ON labels
  FOR EACH ROW EXECUTE FUNCTION refuse_change('labels are')""",
    """CREATE TRIGGER keep_audit_log BEFORE UPDATE OR DELETE ON audit_log
  FOR EACH ROW EXECUTE FUNCTION refuse_change('the audit log is')""",
    """CREATE TRIGGER keep_whole_audit_log BEFORE TRUNCATE ON audit_log
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('the audit log is')""",
)
DELETE_WITH_SAMPLES = (
    """CREATE FUNCTION delete_with_samples() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  numbers bigint[]; ids bytea[]; lowest bigint; highest bigint;
BEGIN
  SELECT array_agg(number), array_agg(sample_id), min(number), max(number)
    INTO numbers, ids, lowest, highest FROM removed;
  IF lowest IS NOT NULL THEN  -- the bounds leave out other partitions
    DELETE FROM labels WHERE sample_number = ANY(numbers);
    DELETE FROM share_links WHERE sample_number = ANY(numbers);
    DELETE FROM claims WHERE number = ANY(numbers);
    DELETE FROM payloads WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
    DELETE FROM verdicts WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
    DELETE FROM sample_keys WHERE sample_id = ANY(ids) AND number BETWEEN lowest AND highest;
  END IF;
  RETURN NULL;
END $$""",
    """CREATE FUNCTION delete_with_verdicts() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  numbers bigint[]; lowest bigint; highest bigint;
BEGIN
  SELECT array_agg(number), min(number), max(number) INTO numbers, lowest, highest FROM removed;
  IF lowest IS NOT NULL THEN
    DELETE FROM anomaly_maps WHERE number = ANY(numbers) AND number BETWEEN lowest AND highest;
  END IF;
  RETURN NULL;
END $$""",
    """CREATE TRIGGER delete_with_samples AFTER DELETE ON samples
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION delete_with_samples()""",
    """CREATE TRIGGER delete_with_verdicts AFTER DELETE ON verdicts
  REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION delete_with_verdicts()""",
)
TRIGGERS = {"sqlite": _SQLITE, "postgresql": (*_POSTGRESQL, *DELETE_WITH_SAMPLES)}
"""Statements that make the triggers, by dialect."""
