{{/* The longest turn in seconds, as tests/deploy/test_manifests.py derives it */}}
{{- define "adaptd.longestTurn" -}}
{{- $s := .Values.settings -}}
{{- $kafka := divf (default 5000 $s.kafka_timeout_ms) 1000 -}}
{{- $redis := divf (default 5000 $s.redis_timeout_ms) 1000 -}}
{{- $delivery := divf (default 10000 $s.kafka_delivery_timeout_ms) 1000 -}}
{{- addf 0.25 (mulf 4 $kafka) (mulf 6 $redis) $delivery 1 10 10 -}}
{{- end -}}

{{/* A quantity in bytes */}}
{{- define "adaptd.bytes" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $factors := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- mulf (trimSuffix $unit $text | float64) (index $factors $unit) -}}
{{- end -}}

{{/* A duration such as 15s in seconds */}}
{{- define "adaptd.seconds" -}}
{{- $total := 0.0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $total = addf $total (mulf (trimSuffix $unit . | float64) (index (dict "ms" 0.001 "s" 1 "m" 60 "h" 3600) $unit)) -}}
{{- end -}}
{{- $total -}}
{{- end -}}

{{/* Whether a NetworkPolicy's ports, the second in the list, hold the port, the first */}}
{{- define "adaptd.portIsOpen" -}}
{{- $port := index . 0 | int -}}
{{- range index . 1 -}}
{{- if and (ge $port (int .port)) (le $port (int (default .port .endPort))) -}}open{{- end -}}
{{- end -}}
{{- end -}}

{{/* What contradicts itself, one line each: the value's path, what is wrong, what to do */}}
{{- define "adaptd.contradictions" -}}
{{- $s := .Values.settings -}}
{{- $partitions := default 8 $s.topic_partitions | int -}}
{{- $longest := include "adaptd.longestTurn" . | float64 -}}
{{- $stop := default 8 $s.stop_timeout_s | float64 -}}
{{- $limits := (include "adaptd.resources" . | fromYaml).limits | default dict -}}
{{- $profile := include "adaptd.profile" . | fromYaml -}}
{{- if .Values.autoscaling.enabled }}
{{- with .Values.autoscaling }}
{{- if gt (int .maxReplicas) $partitions }}
- autoscaling.maxReplicas: {{ .maxReplicas }} workers, but settings.topic_partitions is {{ $partitions }}: the others would idle. Lower it, or set settings.topic_partitions to what the events topic has.
{{- end }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
- autoscaling.minReplicas: {{ .minReplicas }} is more than autoscaling.maxReplicas, {{ .maxReplicas }}. Lower it.
{{- end }}
{{- if gt (int .fallbackReplicas) (int .maxReplicas) }}
- autoscaling.fallbackReplicas: {{ .fallbackReplicas }} is more than autoscaling.maxReplicas, {{ .maxReplicas }}. Lower it.
{{- end }}
{{- $held := addf (divf (default 1000 $s.publish_interval_ms) 1000) (divf (default 1000 $s.adapt_latest_ms) 1000) }}
{{- if ge $held (float64 .pollingInterval) }}
- autoscaling.pollingInterval: {{ .pollingInterval }} s, but offsets wait up to {{ $held }} s for their mappings (settings.publish_interval_ms and adapt_latest_ms), so KEDA would take every partition for one that stands still. Set it to more than {{ $held }}.
{{- end }}
{{- if and .lagSeconds (not .prometheusAddress) }}
- autoscaling.lagSeconds: {{ .lagSeconds }}, but autoscaling.prometheusAddress is not set, where the seconds are asked. Set it, or lagSeconds to 0.
{{- end }}
{{- if and (ne (default "PLAINTEXT" $s.kafka_security_protocol) "PLAINTEXT") (not .authenticationRef) }}
- autoscaling.authenticationRef: not set, but settings.kafka_security_protocol is {{ $s.kafka_security_protocol }}, so KEDA could not ask for the lag. Name a TriggerAuthentication.
{{- end }}
{{- end }}
{{- else if gt (int .Values.replicas) $partitions }}
- replicas: {{ .Values.replicas }} workers, but settings.topic_partitions is {{ $partitions }}: the others would idle. Lower it, or set settings.topic_partitions to what the events topic has.
{{- end }}
{{- if gt $longest $stop }}
- settings.stop_timeout_s: {{ $stop }} s is shorter than the longest turn, {{ $longest }} s with these timeouts. Set it to {{ ceil $longest }}, and terminationGracePeriodSeconds above that.
{{- end }}
{{- if ge $stop (float64 .Values.terminationGracePeriodSeconds) }}
- terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }} must be more than settings.stop_timeout_s, {{ $stop }}. Set it to {{ addf (ceil $stop) 5 }}.
{{- end }}
{{- $away := addf (divf (default 10000 $s.kafka_delivery_timeout_ms) 1000) (mulf 3 (divf (default 5000 $s.kafka_timeout_ms) 1000)) (mulf 2 (divf (default 5000 $s.redis_timeout_ms) 1000)) -}}
{{- $age := default 60 $s.liveness_max_age_s | float64 }}
{{- if gt $away $age }}
- settings.liveness_max_age_s: {{ $age }} s must be at least {{ $away }} s with these timeouts, or a service that is away gets the workers killed. Raise it.
{{- end }}
{{- $probe := .Values.probes.liveness }}
{{- $allowed := addf $age (mulf (subf (float64 $probe.failureThreshold) 1) (float64 $probe.periodSeconds)) }}
{{- if ge $longest $allowed }}
- probes.liveness: a worker is killed after {{ $allowed }} s without a turn, but the longest turn takes {{ $longest }} s. Raise failureThreshold or settings.liveness_max_age_s.
{{- end }}
{{- $poll := divf (default 300000 $s.kafka_max_poll_interval_ms) 1000 }}
{{- if ge $longest $poll }}
- settings.kafka_max_poll_interval_ms: after {{ $poll }} s the group revokes a worker's partitions, but the longest turn takes {{ $longest }} s. Raise it.
{{- end }}
{{- if lt (default 300000 $s.kafka_max_poll_interval_ms | int) (default 10000 $s.kafka_session_timeout_ms | int) }}
- settings.kafka_session_timeout_ms: {{ $s.kafka_session_timeout_ms }} ms is longer than settings.kafka_max_poll_interval_ms, {{ default 300000 $s.kafka_max_poll_interval_ms }} ms. Lower it.
{{- end }}
{{- $least := add (default 5000 $s.kafka_timeout_ms | int) 5 }}
{{- if lt (default 10000 $s.kafka_delivery_timeout_ms | int) (int $least) }}
- settings.kafka_delivery_timeout_ms: {{ default 10000 $s.kafka_delivery_timeout_ms }} ms is shorter than one request to Kafka may take. Set it to at least {{ $least }}.
{{- end }}
{{- $pairs := mul (default 1000 $s.kafka_max_poll_records | int) (default 64 $s.max_pairs_per_event | int) }}
{{- if gt (int $pairs) 200000 }}
- settings.max_pairs_per_event: times settings.kafka_max_poll_records that is {{ $pairs }} pairs a turn, and Redis takes 200000. Lower one of them.
{{- end }}
{{- if and $s.min_support (gt (int $s.min_support) (int (default 32 $s.support_size))) }}
- settings.min_support: {{ $s.min_support }} is more than settings.support_size, {{ default 32 $s.support_size }}. Lower it.
{{- end }}
{{- $device := default $profile.device $s.device }}
{{- $gpu := index $limits "nvidia.com/gpu" }}
{{- if and (hasPrefix "cuda" $device) (not $gpu) }}
- settings.device: {{ $device }}, but the pod gets no GPU. Set profile to cuda.
{{- end }}
{{- if and $gpu (eq $device "cpu") }}
- settings.device: cpu, but each pod reserves a GPU. Set profile to cpu, or leave settings.device out.
{{- end }}
{{- with $limits.cpu }}
{{- $text := toString . }}
{{- $cpus := hasSuffix "m" $text | ternary (divf (trimSuffix "m" $text | float64) 1000) (float64 $text) }}
{{- $threads := $s.torch_threads | int }}
{{- if and (hasKey $s "torch_threads") (eq $threads 0) }}
- settings.torch_threads: 0 lets torch count the cores of the node, but resources.limits.cpu is {{ . }}. Set it to at most that.
{{- else if gt (float64 $threads) (maxf 1 (floor $cpus)) }}
- settings.torch_threads: {{ $threads }} threads, but resources.limits.cpu is {{ . }}: they would wait for one another. Raise the limit or lower the threads.
{{- end }}
{{- end }}
{{- with $limits.memory }}
{{- if and $s.window_memory_mib (not $.Values.spill.enabled) (ge (mulf $s.window_memory_mib 1048576) (include "adaptd.bytes" . | float64)) }}
- settings.window_memory_mib: {{ $s.window_memory_mib }} MiB of windows do not fit in resources.limits.memory, {{ . }}. Raise the limit, or enable spill.
{{- end }}
{{- end }}
{{- $protocol := default "PLAINTEXT" $s.kafka_security_protocol }}
{{- if and .Values.tls.kafka.secret (not (hasSuffix "SSL" $protocol)) }}
- tls.kafka.secret: set, but settings.kafka_security_protocol is {{ $protocol }}, which does not use TLS. Set it to SSL or SASL_SSL.
{{- end }}
{{- range $peer := list "kafka" "redis" }}
{{- with index $.Values.tls $peer }}
{{- if ne (empty .cert) (empty .key) }}
- tls.{{ $peer }}: cert and key go together. Set both or neither.
{{- end }}
{{- if and (or .cert .key) (not .secret) }}
- tls.{{ $peer }}.secret: not set, so there is no {{ .cert }} to mount. Name the Secret.
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.tls.kafka.secret (or $s.kafka_ssl_cafile $s.kafka_ssl_certfile $s.kafka_ssl_keyfile) }}
- settings.kafka_ssl_cafile: tls.kafka sets it and its relatives. Give the files in one place.
{{- end }}
{{- if and .Values.tls.redis.secret $s.redis_url (not (hasPrefix "rediss://" $s.redis_url)) }}
- settings.redis_url: tls.redis.secret is set, but the address does not begin with rediss://. Change it.
{{- end }}
{{- if hasPrefix "SASL" $protocol }}
{{- if eq (default "" $s.kafka_sasl_mechanism) "OAUTHBEARER" }}
{{- if not $s.kafka_oauth_token_provider }}
- settings.kafka_sasl_mechanism: OAUTHBEARER needs a function that returns tokens. Set settings.kafka_oauth_token_provider.
{{- end }}
{{- else if not (and $s.kafka_sasl_mechanism (or $s.kafka_sasl_username .Values.secret.name .Values.extraEnv .Values.extraEnvFrom)) }}
- settings.kafka_security_protocol: {{ $protocol }} needs settings.kafka_sasl_mechanism and settings.kafka_sasl_username, and ADAPTD_KAFKA_SASL_PASSWORD in the Secret.
{{- end }}
{{- end }}
{{- if $s.kafka_sasl_password }}
- settings.kafka_sasl_password: a secret, which everyone who reads the ConfigMap would see. Put ADAPTD_KAFKA_SASL_PASSWORD into the Secret that secret.name names.
{{- end }}
{{- if contains "@" (default "" $s.redis_url) }}
- settings.redis_url: holds a password, which everyone who reads the ConfigMap would see. Put ADAPTD_REDIS_URL into the Secret that secret.name names.
{{- end }}
{{- if and $s.instance (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1)) }}
- settings.instance: workers would share the name {{ $s.instance }}, and turn ids repeat. Leave it out.
{{- end }}
{{- if and .Values.spill.enabled $s.window_spill_dir }}
- settings.window_spill_dir: spill sets it. Give the folder in one place.
{{- end }}
{{- if and .Values.spill.enabled (eq .Values.spill.kind "emptyDir") }}
{{- with index $limits "ephemeral-storage" }}
{{- if lt (include "adaptd.bytes" . | float64) (include "adaptd.bytes" $.Values.spill.size | float64) }}
- resources.limits.ephemeral-storage: {{ . }} is less than spill.size, {{ $.Values.spill.size }}, and the node evicts a pod that fills more. Raise it, or set spill.kind to claim.
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) }}
{{- range splitList "," $s.kafka_bootstrap_servers }}
{{- $port := splitList ":" . | last }}
{{- if not (include "adaptd.portIsOpen" (list $port $.Values.networkPolicy.kafka.ports)) }}
- networkPolicy.kafka.ports: port {{ $port }} of settings.kafka_bootstrap_servers is not among them, so workers could not reach Kafka. Add it.
{{- end }}
{{- end }}
{{- with regexFind ":[0-9]+(/|$|\\?)" (default "" $s.redis_url) }}
{{- $port := regexFind "[0-9]+" . }}
{{- if not (include "adaptd.portIsOpen" (list $port $.Values.networkPolicy.redis.ports)) }}
- networkPolicy.redis.ports: port {{ $port }} of settings.redis_url is not among them, so workers could not reach Redis. Add it.
{{- end }}
{{- end }}
{{- end }}
{{- if and $s.tracing .Values.networkPolicy.enabled (not .Values.networkPolicy.extraEgress) }}
- networkPolicy.extraEgress: settings.tracing sends spans, but nothing lets them out. Add where OTEL_EXPORTER_OTLP_ENDPOINT (among extraEnv) leads.
{{- end }}
{{- range $name, $_ := .Values.podLabels }}
{{- if has $name (list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component") }}
- podLabels: {{ $name }} chooses the pods of this release. Leave it out.
{{- end }}
{{- end }}
{{- range $monitor := list "podMonitor" "serviceMonitor" }}
{{- with index $.Values $monitor }}
{{- if gt (include "adaptd.seconds" .scrapeTimeout | float64) (include "adaptd.seconds" .interval | float64) }}
- {{ $monitor }}.scrapeTimeout: {{ .scrapeTimeout }} is longer than {{ $monitor }}.interval, {{ .interval }}, and Prometheus refuses that. Lower it.
{{- end }}
{{- end }}
{{- end }}
{{- $alerts := list }}
{{- range (.Files.Get "files/rules.yaml" | fromYaml).groups }}
{{- range .rules }}
{{- $alerts = append $alerts (default "" .alert) }}
{{- end }}
{{- end }}
{{- range .Values.prometheusRule.disabled }}
{{- if not (has . $alerts) }}
- prometheusRule.disabled: there is no alert {{ . }}. Correct the name.
{{- end }}
{{- end }}
{{- if and .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}
- serviceMonitor.enabled: podMonitor is enabled too, and every worker would be scraped and counted twice. Choose one.
{{- end }}
{{- end -}}

{{- define "adaptd.refusals" -}}
{{- with include "adaptd.contradictions" . | trim -}}
{{- fail (printf "\n\nThese values contradict each other:\n%s\n" .) -}}
{{- end -}}
{{- end -}}
