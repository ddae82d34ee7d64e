{{- define "adaptd.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of one component: (list $ "worker") */}}
{{- define "adaptd.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "adaptd.labels" -}}
{{- $root := index . 0 -}}
{{ include "adaptd.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "adaptd.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "adaptd.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "adaptd.profile" -}}
{{- toYaml (index .Values.profiles .Values.profile) -}}
{{- end -}}

{{- define "adaptd.image" -}}
{{- $profile := include "adaptd.profile" . | fromYaml -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- $tag := default (printf "%s%s" .Chart.AppVersion $profile.tagSuffix) .Values.image.tag -}}
{{- printf "%s:%s" .Values.image.repository $tag -}}
{{- end -}}
{{- end -}}

{{/* The profile's resources with those of the values laid over them; null takes one away */}}
{{- define "adaptd.resources" -}}
{{- $all := deepCopy (include "adaptd.profile" . | fromYaml).resources -}}
{{- range $kind, $given := .Values.resources -}}
{{- if kindIs "map" $given -}}
{{- $kept := get $all $kind | default dict -}}
{{- range $name, $quantity := $given -}}
{{- if kindIs "invalid" $quantity -}}
{{- $_ := unset $kept $name -}}
{{- else -}}
{{- $_ := set $kept $name $quantity -}}
{{- end -}}
{{- end -}}
{{- $_ := set $all $kind $kept -}}
{{- else -}}
{{- $_ := set $all $kind $given -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{/* redis_url with the TLS files that are mounted */}}
{{- define "adaptd.redisUrl" -}}
{{- $url := .Values.settings.redis_url | default "" -}}
{{- with .Values.tls.redis -}}
{{- if .secret -}}
{{- $query := printf "ssl_ca_certs=/tls/redis/%s" .ca -}}
{{- if .cert -}}
{{- $query = printf "%s&ssl_certfile=/tls/redis/%s&ssl_keyfile=/tls/redis/%s" $query .cert .key -}}
{{- end -}}
{{- printf "%s%s%s" $url (ternary "&" "?" (contains "?" $url)) $query -}}
{{- else -}}
{{- $url -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The settings as variables: values, then what the profile, TLS and the spill folder say */}}
{{- define "adaptd.settings" -}}
{{- $profile := include "adaptd.profile" . | fromYaml -}}
{{- $all := dict "ADAPTD_DEVICE" $profile.device -}}
{{- range $name, $value := .Values.settings -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $text := $value | toString -}}
{{- if kindIs "float64" $value -}}
{{- $text = $value | toJson -}}
{{- end -}}
{{- $_ := set $all (printf "ADAPTD_%s" (upper $name)) $text -}}
{{- end -}}
{{- end -}}
{{- if .Values.settings.redis_url -}}
{{- $_ := set $all "ADAPTD_REDIS_URL" (include "adaptd.redisUrl" .) -}}
{{- end -}}
{{- with .Values.tls.kafka -}}
{{- if .secret -}}
{{- $_ := set $all "ADAPTD_KAFKA_SSL_CAFILE" (printf "/tls/kafka/%s" .ca) -}}
{{- if .cert -}}
{{- $_ := set $all "ADAPTD_KAFKA_SSL_CERTFILE" (printf "/tls/kafka/%s" .cert) -}}
{{- $_ := set $all "ADAPTD_KAFKA_SSL_KEYFILE" (printf "/tls/kafka/%s" .key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.spill.enabled -}}
{{- $_ := set $all "ADAPTD_WINDOW_SPILL_DIR" "/spill" -}}
{{- end -}}
{{- range $name, $value := $all }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "adaptd.envFrom" -}}
{{- with .Values.extraEnvFrom }}
{{- toYaml . }}
{{- end }}
- secretRef:
    name: {{ default (include "adaptd.fullname" .) .Values.secret.name }}
    optional: {{ .Values.secret.optional }}
{{- end -}}

{{- define "adaptd.tlsMounts" -}}
{{- range $peer := list "kafka" "redis" }}
{{- if (index $.Values.tls $peer).secret }}
- name: tls-{{ $peer }}
  mountPath: /tls/{{ $peer }}
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "adaptd.tlsVolumes" -}}
{{- range $peer := list "kafka" "redis" }}
{{- with (index $.Values.tls $peer).secret }}
- name: tls-{{ $peer }}
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end -}}

{{/*
A pod that runs one command of adaptd to its end, with the settings of a ConfigMap:
(dict "root" $ "configMap" NAME "args" (list "topics" "create") "resources" RESOURCES)
*/}}
{{- define "adaptd.commandPod" -}}
{{- $root := .root -}}
restartPolicy: Never
automountServiceAccountToken: false
enableServiceLinks: false # see the Deployment
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $root.Values.podSecurityContext | nindent 2 }}
containers:
  - name: adaptd
    image: {{ include "adaptd.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args: {{ .args | toJson }}
    env:
      - name: ADAPTD_DEVICE
        value: cpu # it adapts nothing
      {{- range $root.Values.extraEnv }}
      {{- if ne .name "ADAPTD_DEVICE" }}
      - {{ toYaml . | nindent 8 | trim }}
      {{- end }}
      {{- end }}
    envFrom:
      - configMapRef:
          name: {{ .configMap }}
      {{- include "adaptd.envFrom" $root | trim | nindent 6 }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    securityContext:
      {{- toYaml $root.Values.securityContext | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if $root.Values.spill.enabled }}
      - name: spill
        mountPath: /spill
      {{- end }}
      {{- with include "adaptd.tlsMounts" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with $root.Values.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 64Mi
  {{- if $root.Values.spill.enabled }}
  - name: spill # must be there, and stays empty
    emptyDir:
      sizeLimit: 64Mi
  {{- end }}
  {{- with include "adaptd.tlsVolumes" $root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with $root.Values.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
