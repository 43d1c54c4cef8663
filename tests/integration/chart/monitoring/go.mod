// Only fetched, never compiled: its source holds the CRDs of ServiceMonitor and PrometheusRule.
module embedfleet.dev/tests/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
