"""Ray: trials, their workers and benchmarks on it, and what is checked before and cleared up
after.
"""

import os

# Read by Ray when it is imported. No reports home; none of Tune's own files, tables and signal
# handlers.
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # a job's settings reach its driver, which hands them on: no conflict
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # Train takes one report per check
    # orchestrator/execution/preemption.py does without a process per trial
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    # then a lost node is known to be lost, and fewer workers start
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # start actors side by side; the study limits how many
}
for _name, _value in RAY_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
