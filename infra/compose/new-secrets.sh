#!/bin/sh
# Prints a new .env with random secrets: sh new-secrets.sh > .env
set -eu
umask 077
for name in RAY_AUTH_TOKEN MINIO_ROOT_PASSWORD STORE_SECRET_KEY POSTGRES_PASSWORD MLFLOW_TRACKING_PASSWORD \
    MLFLOW_FLASK_SERVER_SECRET_KEY GRAFANA_PASSWORD; do
    printf '%s=%s\n' "$name" "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
done
