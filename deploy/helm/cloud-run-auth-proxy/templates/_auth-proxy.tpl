{{/*
Each of these takes the context of the chart that uses it:

  {{ include "cloud-run-auth-proxy.container" . | nindent 8 }}

Its values stand there under `cloud-run-auth-proxy`.
*/}}

{{/* The name of the ConfigMap. */}}
{{- define "cloud-run-auth-proxy.name" -}}
{{ printf "%s-auth-proxy" (.Release.Name | trunc 52) }}
{{- end }}

{{/* The configuration, as the file that the proxy reads. */}}
{{- define "cloud-run-auth-proxy.config" -}}
{{- $config := (index .Values "cloud-run-auth-proxy").config -}}
{{- $_ := required "cloud-run-auth-proxy.config.routes is missing" $config.routes -}}
{{ toYaml $config }}
{{- end }}

{{/* A manifest: the configuration as a ConfigMap. */}}
{{- define "cloud-run-auth-proxy.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "cloud-run-auth-proxy.name" . }}
data:
  config.yaml: |
    {{- include "cloud-run-auth-proxy.config" . | nindent 4 }}
{{- end }}

{{/* An annotation of the pod: another configuration makes other pods, and a bad one stops the rollout. */}}
{{- define "cloud-run-auth-proxy.annotations" -}}
auth-proxy/config: {{ include "cloud-run-auth-proxy.config" . | sha256sum }}
{{- end }}

{{/* An item of the pod's `volumes`. */}}
{{- define "cloud-run-auth-proxy.volume" -}}
- name: auth-proxy
  configMap:
    name: {{ include "cloud-run-auth-proxy.name" . }}
{{- end }}

{{/* An item of the pod's `initContainers`: the proxy, as a native sidecar. */}}
{{- define "cloud-run-auth-proxy.container" -}}
{{- $values := index .Values "cloud-run-auth-proxy" -}}
# restartPolicy makes it a sidecar: it starts before the app, runs beside it, and is told to end only
# when the app has ended.
- name: auth-proxy
  restartPolicy: Always
  image: {{ required "cloud-run-auth-proxy.image is missing" $values.image | quote }}
  imagePullPolicy: {{ $values.imagePullPolicy }}
  env:
    # The kubelet's probes come to the pod's own address, never to loopback.
    - name: AUTH_PROXY_ADMIN
      value: 0.0.0.0:9090
    {{- with $values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    # The admin listener alone: the one that the app calls stays on loopback.
    - name: metrics
      containerPort: 9090
  volumeMounts:
    - name: auth-proxy
      mountPath: /etc/cloud-run-auth-proxy
      readOnly: true
  # The app waits for this one.  A readiness probe would take the whole pod out of its service.
  startupProbe:
    httpGet: {path: /startup, port: 9090}
    periodSeconds: 1
    failureThreshold: 60
  livenessProbe:
    httpGet: {path: /liveness, port: 9090}
    periodSeconds: 10
    timeoutSeconds: 5
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
{{- end }}
