{{/* What every object's name begins with: the release's name, with the chart's in it. */}}
{{- define "embedfleet.fullname" -}}
{{- $whole := ternary .Release.Name (printf "%s-embedfleet" .Release.Name) (contains "embedfleet" .Release.Name) -}}
{{- default $whole .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* The operator's own objects, and its Lease. */}}
{{- define "embedfleet.operator" -}}
{{ include "embedfleet.fullname" . }}-operator
{{- end }}

{{- define "embedfleet.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "embedfleet.operator" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* What selects the operator's pods. The name is fixed: servers' network policies let in pods that have it. */}}
{{- define "embedfleet.selector" -}}
app.kubernetes.io/name: embedfleet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "embedfleet.labels" -}}
{{ include "embedfleet.common" . }}
{{ include "embedfleet.selector" . }}
{{- end }}

{{/* Labels of what is no part of the operator's pods. */}}
{{- define "embedfleet.common" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: embedfleet
{{- end }}
