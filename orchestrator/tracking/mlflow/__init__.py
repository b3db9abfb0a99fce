"""MLflow as a view of a study's record. Its client is quiet here and fails within seconds."""

import logging
import os

# Read by MLflow when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its own retries would last 246 s
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
# Older versions of MLflow set that level anew when they are imported; a filter stays.
logging.getLogger("alembic.runtime.plugins").addFilter(lambda _: False)
# The observer says once what is wrong.
logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
