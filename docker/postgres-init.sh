#!/bin/sh
# Roles and databases of Prefect and MLflow. Run again, it only sets the passwords anew:
#   docker compose -f docker/compose.yaml exec postgres sh /docker-entrypoint-initdb.d/databases.sh
set -eu

PGPASSWORD="${PGPASSWORD:-$POSTGRES_PASSWORD}" psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 \
    --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
-- A refused statement must not put its password into the server's log.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET log_min_duration_statement = -1;

\getenv prefect_password COALA_PREFECT_DB_PASSWORD
\getenv mlflow_password COALA_MLFLOW_DB_PASSWORD

SELECT format('CREATE ROLE %I LOGIN', name) FROM unnest(ARRAY['prefect', 'mlflow']) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec
ALTER ROLE prefect PASSWORD :'prefect_password';
ALTER ROLE mlflow PASSWORD :'mlflow_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, owner)
FROM (VALUES ('prefect', 'prefect'), ('mlflow', 'mlflow'), ('mlflow_auth', 'mlflow')) AS wanted (name, owner)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec
SELECT format('REVOKE ALL ON DATABASE %I FROM PUBLIC', name)
FROM unnest(ARRAY['prefect', 'mlflow', 'mlflow_auth', 'postgres', 'template1']) AS name \gexec
SQL
