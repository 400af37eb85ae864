BEGIN TRANSACTION;
CREATE TABLE runs (
    tag TEXT PRIMARY KEY,
    run_id TEXT,
    base_url TEXT NOT NULL,
    is_embedded INTEGER NOT NULL,
    server_folder TEXT NOT NULL,
    streaming_url TEXT,
    machine TEXT NOT NULL,
    name TEXT NOT NULL,
    timeout_s INTEGER NOT NULL,
    created_at REAL NOT NULL,
    ended_at REAL,
    state TEXT NOT NULL,
    return_code INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    timed_out INTEGER NOT NULL DEFAULT 0,
    price_per_hour REAL,
    billed REAL,
    session TEXT NOT NULL DEFAULT '',
    started_at REAL
);
INSERT INTO "runs" VALUES('00000000000000000000000000000000','run-0','http://127.0.0.1:8000',1,'/state',NULL,'cpu','näme 0',60,1000.0,1010.0,'completed',0,'',0,NULL,NULL,'s',NULL);
INSERT INTO "runs" VALUES('00000000000000000000000000000001','run-1','http://127.0.0.1:8000',0,'/state',NULL,'cpu','näme 1',60,1001.0,1012.0,'failed',1,'it''s why',0,3.6,0.5,'s',NULL);
INSERT INTO "runs" VALUES('00000000000000000000000000000002','run-2','http://127.0.0.1:8000',1,'/state',NULL,'cpu','näme 2',60,1002.0,NULL,'running',NULL,'',0,NULL,NULL,'t',1003.0);
INSERT INTO "runs" VALUES('00000000000000000000000000000003',NULL,'http://127.0.0.1:8000',1,'/state',NULL,'cpu','näme 3',60,1003.0,NULL,'system_failure',NULL,'',0,NULL,NULL,'t',NULL);
CREATE INDEX runs_by_id ON runs (run_id);
CREATE INDEX runs_by_time ON runs (created_at);
COMMIT;

