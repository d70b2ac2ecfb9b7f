{{/* Refuses values that contradict each other, and says which. Included by every workload. */}}
{{- define "sauva.validate" -}}
{{- $v := .Values -}}
{{- $sources := list -}}
{{- range $key := list "existingClaim" "hostPath" "size" -}}
{{- if get $v.model.volume $key }}{{ $sources = append $sources $key }}{{ end -}}
{{- end -}}
{{- if ne (len $sources) 1 -}}
{{- fail (printf "model.volume: exactly one of existingClaim, hostPath and size must be set; set: [%s]" (join ", " $sources)) -}}
{{- end -}}
{{- if not $v.image.repository -}}
{{- fail "image.repository is empty; no image is published: build one (deploy/images), push it and name it there" -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.tls.secretName) -}}
{{- fail "tls.enabled is true but tls.secretName is empty; name a secret or set tls.enabled=false for plaintext" -}}
{{- end -}}
{{- if and (not $v.tls.enabled) $v.tls.secretName -}}
{{- fail (printf "tls.secretName is %s but tls.enabled is false" $v.tls.secretName) -}}
{{- end -}}
{{- with $v.gateway.autoscaling -}}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) -}}
{{- fail (printf "gateway.autoscaling.minReplicas is %d, more than maxReplicas, %d" (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.gateway.otlpCaSecret (not $v.gateway.otlp) -}}
{{- fail (printf "gateway.otlpCaSecret is %s but gateway.otlp names no collector" $v.gateway.otlpCaSecret) -}}
{{- end -}}
{{- with $v.networkPolicy -}}
{{- if and (eq $v.model.link "nccl") .enabled (not .workersBetweenThemselves) -}}
{{- fail "model.link is nccl but networkPolicy.workersBetweenThemselves is false: NCCL picks ports by itself, which the policy closes" -}}
{{- end -}}
{{- end -}}
{{- if lt (int $v.coordinator.leaseMs) (mul 2 (int $v.coordinator.heartbeatMs)) -}}
{{- fail (printf "coordinator.leaseMs is %d, less than two heartbeats of coordinator.heartbeatMs, %d" (int $v.coordinator.leaseMs) (int $v.coordinator.heartbeatMs)) -}}
{{- end -}}
{{- $grace := int $v.gateway.terminationGracePeriodSeconds -}}
{{- $needed := add (int $v.gateway.preStopSeconds) (int $v.gateway.drainTimeoutSeconds) 10 | int -}}
{{- if and $grace (lt $grace $needed) -}}
{{- fail (printf "gateway.terminationGracePeriodSeconds is %d, less than preStopSeconds + drainTimeoutSeconds + 10, %d" $grace $needed) -}}
{{- end -}}
{{- $grace = int $v.worker.terminationGracePeriodSeconds -}}
{{- $needed = add (int $v.worker.drainTimeoutSeconds) 10 | int -}}
{{- if and $grace (lt $grace $needed) -}}
{{- fail (printf "worker.terminationGracePeriodSeconds is %d, less than drainTimeoutSeconds + 10, %d" $grace $needed) -}}
{{- end -}}
{{- $names := list -}}
{{- $count := 0 -}}
{{- $kinds := dict "gpu" 0 "cpu" 0 "reference" 0 -}}
{{- range $v.workerGroups -}}
{{- if has .name $names }}{{ fail (printf "workerGroups: the name %s is there twice" .name) }}{{ end -}}
{{- $names = append $names .name -}}
{{- $count = add $count (int .count) -}}
{{- $kind := include "sauva.deviceKind" .device -}}
{{- $_ := set $kinds $kind (add (get $kinds $kind) (int .count) | int) -}}
{{- include "sauva.validateGroup" . -}}
{{- end -}}
{{- $wanted := add (mul (int $v.model.replicas) (max 1 (int $v.model.stages))) (int $v.model.spares) -}}
{{- if lt (int $count) (int $wanted) -}}
{{- fail (printf "workerGroups have %d workers; model.replicas x stages + spares needs %d" (int $count) (int $wanted)) -}}
{{- end -}}
{{- $pipelines := 0 -}}
{{- range $kind, $workers := $kinds }}{{ $pipelines = add $pipelines (div $workers (max 1 (int $v.model.stages))) }}{{ end -}}
{{- if and (not $v.model.mix) (lt (int $pipelines) (int $v.model.replicas)) -}}
{{- fail (printf "workerGroups hold %d pipelines of model.stages, %d, each on GPUs or on CPUs alone; model.replicas is %d; model.mix lets a pipeline span both" (int $pipelines) (int $v.model.stages) (int $v.model.replicas)) -}}
{{- end -}}
{{- end }}

{{/* Workers of one kind can share a pipeline. */}}
{{- define "sauva.deviceKind" -}}
{{- if hasPrefix "cuda" . }}gpu{{ else if hasPrefix "cpu" . }}cpu{{ else }}reference{{ end -}}
{{- end }}

{{- define "sauva.validateGroup" -}}
{{- $limits := default dict (default dict .resources).limits -}}
{{- $gpus := get $limits "nvidia.com/gpu" -}}
{{- if and (hasPrefix "cuda" .device) (not $gpus) -}}
{{- fail (printf "workerGroups %s: device is %s but resources.limits has no nvidia.com/gpu" .name .device) -}}
{{- end -}}
{{- if and (not (hasPrefix "cuda" .device)) $gpus -}}
{{- fail (printf "workerGroups %s: device is %s but resources.limits takes %v of nvidia.com/gpu" .name .device $gpus) -}}
{{- end -}}
{{- if and $limits.memory (not .memory) -}}
{{- fail (printf "workerGroups %s: resources.limits.memory is %s, so memory must say how much of it the worker may use" .name $limits.memory) -}}
{{- end -}}
{{- if and $limits.memory .memory (not (hasPrefix "cuda" .device)) -}}
{{- $limit := include "sauva.mebibytes" $limits.memory | int -}}
{{- $used := include "sauva.mebibytes" .memory | int -}}
{{- if .shmSize }}{{ $used = add $used (include "sauva.mebibytes" .shmSize | int) | int }}{{ end -}}
{{- if gt $used $limit -}}
{{- fail (printf "workerGroups %s: memory and shmSize are %d Mi together, more than resources.limits.memory, %d Mi" .name $used $limit) -}}
{{- end -}}
{{- end -}}
{{- end }}
