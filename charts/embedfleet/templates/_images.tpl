{{/* The reference of an image: (dict "image" VALUES "tag" TAG). */}}
{{- define "embedfleet.reference" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .tag }}
{{- end -}}
{{- end }}

{{- define "embedfleet.operatorImage" -}}
{{ include "embedfleet.reference" (dict "image" .Values.image "tag" (default .Chart.AppVersion .Values.image.tag)) }}
{{- end }}

{{- define "embedfleet.serverImage" -}}
{{- $tag := .Values.serverImage.tag -}}
{{- if not (or $tag .Values.serverImage.followChart) -}}
{{- $tag = include "embedfleet.installedServerTag" . -}}
{{- end -}}
{{ include "embedfleet.reference" (dict "image" .Values.serverImage "tag" (default .Chart.AppVersion $tag)) }}
{{- end }}

{{/*
The tag of the server's image that the installed operator has, empty where there is none or the repository is another.
An upgrade of the operator alone is to replace no GPU pod, and the server's image is part of every pod's template.
*/}}
{{- define "embedfleet.installedServerTag" -}}
{{- $installed := lookup "apps/v1" "Deployment" .Release.Namespace (include "embedfleet.operator" .) -}}
{{- $prefix := printf "--server-image=%s:" .Values.serverImage.repository -}}
{{- range (dig "spec" "template" "spec" "containers" list (default dict $installed)) -}}
{{- range .args -}}
{{- if hasPrefix $prefix . }}{{ trimPrefix $prefix . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end }}
