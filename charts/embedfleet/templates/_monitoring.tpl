{{/* `true` where something is asked for, or its type is there: (dict "root" . "create" CREATE "kind" KIND). */}}
{{- define "embedfleet.wanted" -}}
{{- $known := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- if or (eq .create "Always") (and (eq .create "Auto") $known) }}true{{ end -}}
{{- end }}
