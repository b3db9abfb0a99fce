"""What people see: progress, tables, gauges, figures."""
