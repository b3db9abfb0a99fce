"""Prints the Grafana dashboard: python infra/monitoring/make_dashboard.py >
infra/monitoring/vitaclip-dashboard.json
"""

from __future__ import annotations

import json
from typing import Any

STUDY = '{study=~"$study"}'
PANELS = [  # title, unit, queries with their legends
    ("Trials by state", "short", [(f"sum by (state) (ray_vitaclip_trials{STUDY})", "{{state}}")]),
    (
        "Share of trials finished",
        "percentunit",
        [
            (
                "sum by (study) "
                f'(ray_vitaclip_trials{{study=~"$study",state=~"complete|pruned|failed"}}) '
                f"/ sum by (study) (ray_vitaclip_trials_planned{STUDY})",
                "{{study}}",
            ),
        ],
    ),
    (
        "Best objective",
        "short",
        [(f"max by (study) (ray_vitaclip_objective_best{STUDY})", "{{study}}")],
    ),
    (
        "Clips per second",
        "short",
        [(f"sum by (study) (ray_vitaclip_clips_per_second{STUDY})", "{{study}}")],
    ),
    (
        "Waiting for video",
        "percentunit",
        [(f"max by (study) (ray_vitaclip_data_wait_ratio{STUDY})", "{{study}}")],
    ),
    (
        "Epochs per hour",
        "short",
        [(f"sum by (study) (rate(ray_vitaclip_epochs{STUDY}[10m])) * 3600", "{{study}}")],
    ),
    (
        "Broken videos; retries; what MLflow lacks",
        "short",
        [
            (f"sum by (study) (ray_vitaclip_broken_videos{STUDY})", "broken, {{study}}"),
            (f"sum by (study) (ray_vitaclip_retries{STUDY})", "retries, {{study}}"),
            (f"sum by (study) (ray_vitaclip_tracking_waiting{STUDY})", "waiting, {{study}}"),
        ],
    ),
    ("GPU use", "percent", [("ray_node_gpus_utilization", "{{instance}} {{GpuIndex}}")]),
    ("GPU memory", "decmbytes", [("ray_node_gram_used", "{{instance}} {{GpuIndex}}")]),
    ("CPU use", "percent", [("ray_node_cpu_utilization", "{{instance}}")]),
    ("Memory", "bytes", [("ray_node_mem_used", "{{instance}}")]),
]


def panel(number: int, title: str, unit: str, queries: list[tuple[str, str]]) -> dict[str, Any]:
    """One time series, two to a row."""
    return {
        "id": number + 1,
        "title": title,
        "type": "timeseries",
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "gridPos": {"x": 12 * (number % 2), "y": 8 * (number // 2), "w": 12, "h": 8},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend}
            for i, (query, legend) in enumerate(queries)
        ],
    }


def dashboard() -> dict[str, Any]:
    """The whole dashboard, as Grafana imports it."""
    study = {
        "name": "study",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "prometheus"},
        "query": "label_values(ray_vitaclip_trials_planned, study)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
    return {
        "uid": "vitaclip",
        "title": "Vita-CLIP sweeps",
        "schemaVersion": 39,
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "10s",
        "templating": {"list": [study]},
        "panels": [panel(number, *row) for number, row in enumerate(PANELS)],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
