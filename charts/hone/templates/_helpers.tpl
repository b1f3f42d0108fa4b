{{/* Names, labels, images and rights that several templates share. */}}

{{- define "hone.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "hone.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "hone.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "hone.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "hone.selectorLabels" -}}
app.kubernetes.io/name: {{ include "hone.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Not "managed-by: hone": that marks what the operator makes, and is what it watches. */}}
{{- define "hone.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "hone.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "hone.serviceAccountName" -}}
{{- default (include "hone.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{/*
Refuses values that other charts read and this one would ignore. A parent chart may set global.imageRegistry for its
other charts, so it is refused only where image.registry does not say where our images are.
*/}}
{{- define "hone.checkValues" -}}
{{- if and (dig "imageRegistry" "" (.Values.global | default dict)) (not .Values.image.registry) }}
{{- fail "global.imageRegistry is not a value of this chart: set image.registry, which names the registry of all its images" }}
{{- end }}
{{- end }}

{{/* Full name of an image. Call with (list $ "<key under .Values.image>"). */}}
{{- define "hone.image" -}}
{{- $root := index . 0 }}
{{- $image := index $root.Values.image (index . 1) }}
{{- $registry := default $image.registry $root.Values.image.registry | trimSuffix "/" }}
{{- $version := printf ":%s" (default $root.Chart.AppVersion $image.tag) }}
{{- if $image.digest }}{{ $version = printf "@%s" $image.digest }}{{ end }}
{{- printf "%s/%s%s" $registry $image.repository $version }}
{{- end }}

{{/* Who may connect to the pods of users, as the operator reads it: JSON. */}}
{{- define "hone.networkPeers" -}}
{{- $namespace := dict "matchLabels" (dict "kubernetes.io/metadata.name" .Release.Namespace) }}
{{- $pod := dict "matchLabels" (include "hone.selectorLabels" . | fromYaml) }}
{{- $operator := list (dict "namespaceSelector" $namespace "podSelector" $pod) }}
{{- $values := pick .Values.networkPolicies "metrics" "clients" "egress" "enforced" }}
{{- merge (dict "operator" $operator) $values | toJson }}
{{- end }}

{{/*
Whether the cluster has ValidatingAdmissionPolicies; not empty if so. Every version that the chart supports has them,
unless an administrator switched the API off, which only a cluster can tell: `helm template` knows no kinds.
*/}}
{{- define "hone.hasAdmissionPolicies" -}}
{{- $versions := .Capabilities.APIVersions }}
{{- if or ($versions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy") (not ($versions.Has "apps/v1/Deployment")) }}yes{{ end }}
{{- end }}

{{/*
Everything that the operator may do, in each namespace it serves. It can read no
Secrets, and has no exec, logs, or anything of RBAC.
Server-side apply needs create and patch; it is used where patch stands.
*/}}
{{- define "hone.rules" -}}
- apiGroups: [hone.dev]
  resources: [finetunejobs, modeldeployments]
  verbs: [get, list, watch]
- apiGroups: [hone.dev]
  resources: [finetunejobs/status, modeldeployments/status]
  verbs: [update]
# To own children with blockOwnerDeletion, where the cluster checks it (OpenShift does).
- apiGroups: [hone.dev]
  resources: [finetunejobs/finalizers, modeldeployments/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# Deleted are those of a candidate once its rollout is over.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, create, delete]
# Of these four, only the metadata is listed and watched; of ConfigMaps and policies, only our own.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  # Switched off, those that exist are deleted.
  verbs: [get, list, watch, create, patch{{ if not .Values.networkPolicies.enabled }}, delete{{ end }}]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create]
# Keys of servers: generated once, and never read. It can see, list, change and delete no Secret.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [get, create, patch]
{{- end }}
