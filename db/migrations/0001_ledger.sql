-- The first ledger. Times ending in _ms are wall-clock milliseconds (UTC);
-- those ending in _mono are monotonic and mean something only until the next
-- start. No patient's name, ID or birth date has a column here: patient_digest
-- serves to see that two objects belong to one patient, and nothing else.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE study (
    id             INTEGER PRIMARY KEY,
    study_uid      TEXT NOT NULL UNIQUE,
    accession      TEXT NOT NULL DEFAULT '',
    study_date     TEXT NOT NULL DEFAULT '',
    patient_digest BLOB NOT NULL,
    two_patients   INTEGER NOT NULL DEFAULT 0,
    first_ms       INTEGER NOT NULL,
    last_ms        INTEGER NOT NULL,
    stored         INTEGER NOT NULL DEFAULT 0,
    ct             INTEGER NOT NULL DEFAULT 0,
    duplicates     INTEGER NOT NULL DEFAULT 0,
    conflicts      INTEGER NOT NULL DEFAULT 0,
    echoes         INTEGER NOT NULL DEFAULT 0,
    refused        INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE series (
    id         INTEGER PRIMARY KEY,
    study      INTEGER NOT NULL REFERENCES study(id),
    series_uid TEXT NOT NULL,
    modality   TEXT NOT NULL,
    instances  INTEGER NOT NULL DEFAULT 0,
    ct         INTEGER NOT NULL DEFAULT 0,
    UNIQUE (study, series_uid)
);

-- revision: the one this CT instance joined; 0 for what starts none.
CREATE TABLE instance (
    id              INTEGER PRIMARY KEY,
    study           INTEGER NOT NULL REFERENCES study(id),
    series          INTEGER NOT NULL REFERENCES series(id),
    revision        INTEGER NOT NULL,
    sop_instance    TEXT NOT NULL UNIQUE,
    sop_class       TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    size_bytes      INTEGER NOT NULL,
    name            TEXT NOT NULL UNIQUE,
    received_ms     INTEGER NOT NULL,
    calling_ae      TEXT NOT NULL,
    peer            TEXT NOT NULL
);
CREATE INDEX instance_of_study ON instance(study, revision);

CREATE TABLE job (
    id          INTEGER PRIMARY KEY,
    study       INTEGER NOT NULL REFERENCES study(id),
    revision    INTEGER NOT NULL,
    state       TEXT NOT NULL,
    decision    TEXT NOT NULL DEFAULT '',  -- why it became ready
    reason_code TEXT NOT NULL DEFAULT '',
    reason      TEXT NOT NULL DEFAULT '',
    run         INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    opened_ms   INTEGER NOT NULL,
    moved_ms    INTEGER NOT NULL,
    ready_ms    INTEGER NOT NULL DEFAULT 0,
    created_ms  INTEGER NOT NULL DEFAULT 0, -- the report's times, frozen
    first_mono  INTEGER NOT NULL,
    last_mono   INTEGER NOT NULL,
    look        INTEGER NOT NULL DEFAULT 0,
    looking     INTEGER NOT NULL DEFAULT 0,
    looked      INTEGER NOT NULL DEFAULT 0,
    phases      INTEGER NOT NULL DEFAULT 0,
    result_set  INTEGER REFERENCES result_set(id),
    UNIQUE (study, revision)
);
CREATE INDEX job_by_state ON job(state, ready_ms);
CREATE INDEX job_of_set ON job(result_set);

CREATE TABLE run (
    id           INTEGER PRIMARY KEY,
    job          INTEGER NOT NULL REFERENCES job(id),
    number       INTEGER NOT NULL,
    started_ms   INTEGER NOT NULL,
    ended_ms     INTEGER NOT NULL DEFAULT 0,
    outcome      TEXT NOT NULL DEFAULT '',
    reason_code  TEXT NOT NULL DEFAULT '',
    reason       TEXT NOT NULL DEFAULT '',
    input_digest TEXT NOT NULL DEFAULT '',
    findings     TEXT,
    UNIQUE (job, number)
);

-- The objects built from one input by one bundle: built once, found again.
CREATE TABLE result_set (
    id            INTEGER PRIMARY KEY,
    study         INTEGER NOT NULL REFERENCES study(id),
    input_digest  TEXT NOT NULL,
    bundle_sha256 TEXT NOT NULL,
    job           INTEGER NOT NULL REFERENCES job(id),
    run           INTEGER NOT NULL,
    folder        TEXT NOT NULL UNIQUE,
    created_ms    INTEGER NOT NULL,
    UNIQUE (study, input_digest, bundle_sha256)
);

CREATE TABLE result (
    id           INTEGER PRIMARY KEY,
    result_set   INTEGER NOT NULL REFERENCES result_set(id),
    kind         TEXT NOT NULL,
    sop_class    TEXT NOT NULL,
    sop_instance TEXT NOT NULL UNIQUE,
    series_uid   TEXT NOT NULL DEFAULT '',
    file         TEXT NOT NULL,
    png          TEXT NOT NULL DEFAULT '',
    required     INTEGER NOT NULL
);
CREATE INDEX result_of_set ON result(result_set);

-- One object to one peer, whichever revisions it was built for; job is the
-- newest of them.
CREATE TABLE delivery (
    id          INTEGER PRIMARY KEY,
    result      INTEGER NOT NULL REFERENCES result(id),
    peer        TEXT NOT NULL,
    job         INTEGER NOT NULL REFERENCES job(id),
    state       TEXT NOT NULL,
    attempts    INTEGER NOT NULL DEFAULT 0,
    deaths      INTEGER NOT NULL DEFAULT 0,
    next_ms     INTEGER NOT NULL DEFAULT 0,
    queued_ms   INTEGER NOT NULL,
    answered_ms INTEGER NOT NULL DEFAULT 0,
    status      INTEGER NOT NULL DEFAULT 65535,
    words       TEXT NOT NULL DEFAULT '',
    UNIQUE (result, peer)
);
CREATE INDEX delivery_queue ON delivery(peer, state, job, id);
CREATE INDEX delivery_of_job ON delivery(job, state);

CREATE TABLE peer (
    name     TEXT PRIMARY KEY,
    failures INTEGER NOT NULL DEFAULT 0,
    next_ms  INTEGER NOT NULL DEFAULT 0,
    last_ok_ms INTEGER NOT NULL DEFAULT 0,
    words    TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;

CREATE TABLE event (
    id    INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    study INTEGER,
    job   INTEGER,
    kind  TEXT NOT NULL,
    words TEXT NOT NULL
);
CREATE INDEX event_of_study ON event(study, id);
CREATE INDEX event_of_job ON event(job, id);
