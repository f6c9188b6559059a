-- Store paths are base names, `<hash part>-<name>`; the store directory is a setting. Times are Unix seconds.

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE objects (
    id              INTEGER PRIMARY KEY,
    path            TEXT NOT NULL UNIQUE,
    nar_hash        BLOB NOT NULL CHECK (length(nar_hash) = 32),
    nar_size        INTEGER NOT NULL,
    deriver         TEXT,
    content_address TEXT,
    registered_at   INTEGER NOT NULL,
    verified_at     INTEGER,
    -- Set while an object that vanished from the disk is being put back: not valid until it is registered again.
    withdrawn       INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE object_references (
    referrer  INTEGER NOT NULL REFERENCES objects (id) ON DELETE CASCADE,
    reference INTEGER NOT NULL REFERENCES objects (id) ON DELETE RESTRICT,
    PRIMARY KEY (referrer, reference)
) STRICT, WITHOUT ROWID;

CREATE INDEX object_references_by_reference ON object_references (reference);

CREATE TABLE derivations (
    id    INTEGER PRIMARY KEY,
    path  TEXT NOT NULL UNIQUE,
    aterm BLOB NOT NULL
) STRICT;

-- What a derivation refers to: derivations and objects, neither of which need be there.
CREATE TABLE derivation_references (
    derivation INTEGER NOT NULL REFERENCES derivations (id) ON DELETE CASCADE,
    reference  TEXT NOT NULL,
    PRIMARY KEY (derivation, reference)
) STRICT, WITHOUT ROWID;

CREATE INDEX derivation_references_by_reference ON derivation_references (reference);

-- One row for each build or substitution; rows are never changed, and outlive the objects they speak of.
CREATE TABLE realisations (
    id                    INTEGER PRIMARY KEY,
    derivation            TEXT NOT NULL,
    output                TEXT NOT NULL,
    path                  TEXT NOT NULL,
    nar_hash              BLOB CHECK (length(nar_hash) = 32),
    engine                TEXT NOT NULL,
    started_at            INTEGER NOT NULL,
    duration_milliseconds INTEGER NOT NULL,
    log                   TEXT,
    verdict               TEXT NOT NULL
) STRICT;

CREATE INDEX realisations_by_output ON realisations (derivation, output);

CREATE INDEX realisations_by_path ON realisations (path);

-- One row for each time an output was built again and compared.
CREATE TABLE checks (
    id              INTEGER PRIMARY KEY,
    derivation      TEXT NOT NULL,
    output          TEXT NOT NULL,
    first_nar_hash  BLOB NOT NULL CHECK (length(first_nar_hash) = 32),
    second_nar_hash BLOB NOT NULL CHECK (length(second_nar_hash) = 32),
    identical       INTEGER NOT NULL,
    knobs           TEXT NOT NULL,
    checked_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX checks_by_output ON checks (derivation, output);
