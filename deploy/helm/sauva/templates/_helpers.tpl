{{- define "sauva.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sauva.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "sauva.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels that pods are chosen by; they never change. Takes {root, component}. */}}
{{- define "sauva.selector" -}}
app.kubernetes.io/name: {{ include "sauva.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All labels. Takes {root, component}. */}}
{{- define "sauva.labels" -}}
{{ include "sauva.selector" . }}
app.kubernetes.io/part-of: sauva
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sauva.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sauva.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Takes {root, device}. */}}
{{- define "sauva.image" -}}
{{- $tag := default .root.Chart.AppVersion .root.Values.image.tag -}}
{{- $variant := ternary "-cuda" "" (hasPrefix "cuda" .device) -}}
{{- printf "%s:%s%s" .root.Values.image.repository $tag $variant | quote }}
{{- end }}

{{- define "sauva.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "sauva.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Flags that every service takes. */}}
{{- define "sauva.commonArgs" -}}
- --metrics=0.0.0.0:8080
- --health=0.0.0.0:7079
- --log-level={{ .Values.logLevel }}
- --metrics-compat={{ .Values.metricsCompat }}
{{- if .Values.tls.enabled }}
- --tls-cert=/etc/sauva/tls/tls.crt
- --tls-key=/etc/sauva/tls/tls.key
- --tls-ca=/etc/sauva/tls/ca.crt
{{- else }}
- --insecure
{{- end }}
{{- end }}

{{- define "sauva.coordinatorAddress" -}}
{{ include "sauva.fullname" . }}-coordinator.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}:7071
{{- end }}

{{/* Prints who serves what; the image has no shell, but the command line. */}}
{{- define "sauva.statusCommand" -}}
kubectl -n {{ .Release.Namespace }} exec deploy/{{ include "sauva.fullname" . }}-coordinator -- /usr/bin/sauva status
{{- if .Values.tls.enabled }} --coordinator={{ include "sauva.coordinatorAddress" . }} --tls-cert=/etc/sauva/tls/tls.crt --tls-key=/etc/sauva/tls/tls.key --tls-ca=/etc/sauva/tls/ca.crt
{{- else }} --coordinator=127.0.0.1:7071
{{- end }}
{{- end }}

{{/* Three questions: has it begun, do its loops turn, does it do its part. */}}
{{- define "sauva.probes" -}}
startupProbe:
  grpc: {port: 7079, service: startup}
  periodSeconds: 5
  failureThreshold: 120
livenessProbe:
  grpc: {port: 7079, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: 7079, service: readiness}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end }}

{{- define "sauva.tlsVolume" -}}
{{- if .Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "sauva.tlsMount" -}}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/sauva/tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "sauva.otlpVolume" }}
{{- with .Values.gateway.otlpCaSecret }}
- name: otlp-ca
  secret:
    secretName: {{ . }}
    items: [{key: ca.crt, path: ca.crt}]
    defaultMode: 0440
{{- end }}
{{- end }}

{{- define "sauva.otlpMount" }}
{{- if .Values.gateway.otlpCaSecret }}
- name: otlp-ca
  mountPath: /etc/sauva/otlp
  readOnly: true
{{- end }}
{{- end }}

{{- define "sauva.modelVolume" -}}
- name: models
{{- with .Values.model.volume }}
{{- if .hostPath }}
  hostPath:
    path: {{ .hostPath | quote }}
    type: Directory
{{- else }}
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-models" (include "sauva.fullname" $)) .existingClaim }}
    readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/* Bytes of a Kubernetes quantity in Mi, of the kinds Mi and Gi. */}}
{{- define "sauva.mebibytes" -}}
{{- if hasSuffix "Gi" . }}{{ mul 1024 (trimSuffix "Gi" . | int) }}
{{- else if hasSuffix "Mi" . }}{{ trimSuffix "Mi" . | int }}
{{- else }}{{ fail (printf "%s is no quantity in Mi or Gi" .) }}
{{- end }}
{{- end }}

{{- define "sauva.gatewayGrace" -}}
{{- $needed := add .Values.gateway.preStopSeconds .Values.gateway.drainTimeoutSeconds 10 -}}
{{- default $needed .Values.gateway.terminationGracePeriodSeconds }}
{{- end }}

{{- define "sauva.workerGrace" -}}
{{- default (add .Values.worker.drainTimeoutSeconds 10) .Values.worker.terminationGracePeriodSeconds }}
{{- end }}

{{/* An update restarts one pod of every StatefulSet at once; spares must be able to replace them. */}}
{{- define "sauva.workerUpdateStrategy" -}}
{{- $groups := len .Values.workerGroups -}}
{{- $safe := or (eq $groups 1) (ge (int .Values.model.spares) $groups) -}}
{{- default (ternary "RollingUpdate" "OnDelete" $safe) .Values.worker.updateStrategy }}
{{- end }}

{{/* Ingress rule: who may scrape. */}}
{{- define "sauva.scrapeRule" }}
- {{- with .Values.networkPolicy.metricsFrom }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
  ports:
    - {protocol: TCP, port: 8080}
{{- end }}

{{/* Egress rule: name resolution. */}}
{{- define "sauva.dnsRule" }}
- ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end }}
