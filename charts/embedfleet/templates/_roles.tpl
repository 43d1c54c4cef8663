{{/* The rules of a generated role: (dict "root" . "role" NAME). generated/roles.yaml is made from what the operator asks. */}}
{{- define "embedfleet.rules" -}}
{{- range $text := splitList "\n---\n" (.root.Files.Get "generated/roles.yaml") -}}
{{- $role := fromYaml $text -}}
{{- if eq $role.metadata.name $.role -}}
{{ toYaml $role.rules }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* A binding's ends: (dict "root" . "kind" KIND "name" NAME). */}}
{{- define "embedfleet.bound" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "embedfleet.serviceAccount" .root }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}
