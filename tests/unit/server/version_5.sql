BEGIN TRANSACTION;
CREATE TABLE api_keys (
        sequence INTEGER PRIMARY KEY,
        key_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        prefix TEXT NOT NULL,
        digest BLOB NOT NULL UNIQUE,
        created_at REAL NOT NULL,
        expires_at REAL,
        is_active INTEGER NOT NULL,
        last_used_at REAL
    );
CREATE TABLE attempts (
        delivery_id TEXT NOT NULL REFERENCES deliveries (delivery_id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        started_at REAL NOT NULL,
        took_s REAL NOT NULL,
        address TEXT,
        status_code INTEGER,
        error TEXT NOT NULL,
        next_at REAL,
        PRIMARY KEY (delivery_id, number)
    ) WITHOUT ROWID;
CREATE TABLE deliveries (
        sequence INTEGER PRIMARY KEY,
        delivery_id TEXT NOT NULL UNIQUE,
        run_id TEXT,
        sealed BLOB,
        shown_url TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        tries INTEGER NOT NULL,
        planned_at REAL,
        next_at REAL,
        ended_at REAL,
        error TEXT NOT NULL,
        redeliveries INTEGER NOT NULL,
        body BLOB NOT NULL,
        CHECK (state <> 'pending' OR next_at IS NOT NULL)
    );
CREATE TABLE runs (
        sequence INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL UNIQUE,
        request TEXT NOT NULL,
        job_type TEXT NOT NULL,
        created_at REAL NOT NULL,
        state TEXT NOT NULL,
        timed_out INTEGER NOT NULL,
        return_code INTEGER,
        error TEXT NOT NULL,
        started_at REAL,
        finished_at REAL,
        spool TEXT
    , kind TEXT NOT NULL DEFAULT 'python', sealed BLOB);
INSERT INTO "runs" VALUES(1,'run-0','{"execution_type":"cpu","timeout":60,"file_name":"cell.py","labels":["a"],"metadata":{"k":"v"},"code":"print(''é'')\nprint(''é'')\nprint(''é'')\n","nbcode":0,"import_files":"{\"m.py\": \"x = 1\"}"}','python',1000.0,'completed',0,0,'',1001.0,1002.5,'/state/runs/run-0/spool','python',NULL);
INSERT INTO "runs" VALUES(2,'run-1','{"execution_type":"cpu","timeout":60,"run_name":"an image","aws_region":"us-east-1","docker_image_ref":"python:3.12-slim","docker_run_cmd":["sh","-c","true"],"enable_s3_mount":true,"s3_mount_path":"/mnt/s3"}','customer_image',1001.0,'failed',0,1,'why',1002.0,1003.5,'/state/runs/run-1/spool','image',NULL);
INSERT INTO "runs" VALUES(3,'run-2','{"execution_type":"cpu","timeout":9,"aws_region":"us-east-1","compose_file_code":"services: {a: {image: x}}","enable_s3_mount":false}','customer_compose',1002.0,'aborted',0,2,'why',1003.0,1004.5,'/state/runs/run-2/spool','compose',NULL);
INSERT INTO "runs" VALUES(4,'run-3','{"execution_type":"cpu","timeout":60,"file_name":"cell.py","labels":["a"],"metadata":{"k":"v"},"code":"print(''é'')\nprint(''é'')\nprint(''é'')\n","nbcode":0,"import_files":"{\"m.py\": \"x = 1\"}"}','python',1003.0,'completed',0,0,'',1004.0,1005.5,'/state/runs/run-3/spool','python',NULL);
INSERT INTO "runs" VALUES(5,'run-4','{"execution_type":"cpu","timeout":60,"run_name":"an image","aws_region":"us-east-1","docker_image_ref":"python:3.12-slim","docker_run_cmd":["sh","-c","true"],"enable_s3_mount":true,"s3_mount_path":"/mnt/s3"}','customer_image',1004.0,'running',0,NULL,'',1005.0,NULL,'/state/runs/run-4/spool','image',NULL);
INSERT INTO "runs" VALUES(6,'run-5','{"execution_type":"cpu","timeout":9,"aws_region":"us-east-1","compose_file_code":"services: {a: {image: x}}","enable_s3_mount":false}','customer_compose',1005.0,'aborted',0,2,'why',1006.0,1007.5,'/state/runs/run-5/spool','compose',NULL);
CREATE TABLE secrets (
        secret_id TEXT NOT NULL PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        is_secret INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL,
        updated_at REAL NOT NULL,
        sealed BLOB NOT NULL
    );
CREATE TABLE signing_secrets (
        sequence INTEGER PRIMARY KEY,
        sealed BLOB NOT NULL,
        created_at REAL NOT NULL,
        retires_at REAL
    );
CREATE INDEX runs_by_state ON runs (state);
CREATE INDEX deliveries_planned ON deliveries (endpoint, next_at) WHERE state = 'pending';
CREATE INDEX deliveries_done ON deliveries (ended_at) WHERE state = 'delivered';
CREATE INDEX deliveries_by_run ON deliveries (run_id, state);
CREATE INDEX deliveries_by_state ON deliveries (state);
CREATE INDEX deliveries_due ON deliveries (next_at, endpoint) WHERE state = 'pending';
CREATE INDEX deliveries_first ON deliveries (endpoint, next_at)
    WHERE state = 'pending' AND tries = 0
;
COMMIT;
PRAGMA user_version = 5;

