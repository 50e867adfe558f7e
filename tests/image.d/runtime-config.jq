# Turns a pod of a DaemonSet into the configuration of an OCI runtime, as containerd and CRI-O do for a container that is not
# privileged. The input is the runtime configuration that umoci derived from the image.
#
# --slurpfile manifests  the rendered manifests
# --slurpfile seccomp    the seccomp profile for RuntimeDefault, in the form of containers-common
# --arg name             the name of the DaemonSet
# --arg node             the name of the node
# --arg volumes          the folder with the content of each ConfigMap
# --arg architecture     the architecture of the machine, as Go names it

($manifests[0][] | select(.kind == "DaemonSet" and .metadata.name == $name)) as $set
| $set.spec.template.spec as $pod
| $pod.containers[0] as $container
| $container.securityContext as $security
| ({amd64: "SCMP_ARCH_X86_64", arm64: "SCMP_ARCH_AARCH64"}[$architecture]) as $native

# With NET_ADMIN and no other capability.
| ["CAP_" + $security.capabilities.add[]] as $capabilities

# RuntimeDefault: the rules for the architecture and the capabilities of the container.
| def applies:
    (.includes // {}) as $includes | (.excludes // {}) as $excludes
    | (($includes.arches // []) | length == 0 or index($architecture) != null)
      and (($excludes.arches // []) | index($architecture) == null)
      and (($includes.caps // []) - $capabilities == [])
      and ((($excludes.caps // []) - $capabilities) == ($excludes.caps // []));
  ($seccomp[0] | {
      defaultAction,
      defaultErrnoRet,
      architectures: [.archMap[] | select(.architecture == $native) | .architecture, .subArchitectures[]],
      syscalls: [.syscalls[] | select(applies) | {names, action}
        + (if (.args // []) | length > 0 then {args} else {} end)
        + (if .errnoRet != null then {errnoRet} else {} end)]
    }) as $profile

# Volumes by name, as what a container mounts.
| (reduce $pod.volumes[] as $volume ({};
    .[$volume.name] = ($volume.hostPath.path // "\($volumes)/\($volume.configMap.name)"))) as $sources

| .root.readonly = $security.readOnlyRootFilesystem
| .hostname = $node
| .process.terminal = false
| .process.user = {uid: $security.runAsUser, gid: 0}
| .process.noNewPrivileges = ($security.allowPrivilegeEscalation | not)
| .process.args += $container.args
| .process.env += [$container.env[]
    | "\(.name)=\(.value // {"spec.nodeName": $node}[.valueFrom.fieldRef.fieldPath])"]
| .process.capabilities = {bounding: $capabilities, effective: $capabilities, permitted: $capabilities}
| del(.process.rlimits)
| .mounts = [
    {destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"]},
    {destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {destination: "/dev/pts", type: "devpts", source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
    {destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"]},
    {destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"]}
  ] + [$container.volumeMounts[]
    | {destination: .mountPath, type: "bind", source: $sources[.name],
       options: ["rbind", "rprivate", if .readOnly then "ro" else "rw" end]}]
| if $pod.hostNetwork and ($pod.hostPID or $pod.hostIPC | not) then . else error("not the namespaces below") end
| .linux.namespaces = [{type: "pid"}, {type: "ipc"}, {type: "uts"}, {type: "mount"}]
| .linux.seccomp = $profile
| .linux.maskedPaths = ["/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
    "/sys/firmware"]
| .linux.readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
| del(.linux.resources, .linux.uidMappings, .linux.gidMappings, .linux.rootfsPropagation)
