{{/* What Pod Security's level `restricted` asks of a pod, and a user that every image has: 65532, by number. */}}
{{- define "embedfleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* What it asks of a container, and a root file system that cannot be written. */}}
{{- define "embedfleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The fields of a pod of `helm test` that are the same for all of them. */}}
{{- define "embedfleet.testPod" -}}
restartPolicy: Never
{{- /* Ends a pod whose image cannot be pulled too: nothing is left hanging. */}}
activeDeadlineSeconds: {{ add .Values.test.waitSeconds 600 }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "embedfleet.podSecurity" . | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "embedfleet.testAnnotations" -}}
helm.sh/hook: test
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}
