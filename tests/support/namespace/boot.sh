# shellcheck shell=sh
# Boots systemd in a folder, in new mount, process ID and control group namespaces. `BootedMachine` and tests/install use it.

# mount_machine ROOT [BOOT_ID]: mounts what a machine needs. As in a container, only /proc/sys/net is writable, and no hardware is
# visible. A new boot ID is written to the file BOOT_ID. Units with ProtectSystem= of systemd 252 do not see it.
mount_machine() {
    mount -t proc none "$1/proc"
    mount --bind "$1/proc/sys" "$1/proc/sys"
    mount -o remount,bind,ro "$1/proc/sys"
    mount --bind "$1/proc/sys/net" "$1/proc/sys/net"
    mount -o remount,bind,rw "$1/proc/sys/net"
    if [ "${2-}" ]; then
        cat /proc/sys/kernel/random/uuid >"$2"
        mount --bind "$2" "$1/proc/sys/kernel/random/boot_id"
    fi
    mount -t sysfs -o ro none "$1/sys"
    mount -t cgroup2 none "$1/sys/fs/cgroup"
    mount -t tmpfs -o mode=755 none "$1/run"
    mount -t tmpfs none "$1/tmp"
    mount -t tmpfs -o mode=755 none "$1/dev"
    for device in null zero full random urandom; do
        : >"$1/dev/$device"
        mount --bind "/dev/$device" "$1/dev/$device"
    done
    ln -s /proc/self/fd "$1/dev/fd"
    mkdir "$1/dev/pts" "$1/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666 none "$1/dev/pts"
    ln -s pts/ptmx "$1/dev/ptmx"
    mount -t tmpfs none "$1/dev/shm"
}

# select_units ROOT: lets systemd start the journal, and nothing else that its distribution starts.
select_units() {
    units=$1/usr/lib/systemd/system
    rm -rf "$1/usr/lib/systemd/system-generators" "$units"/*.wants "$units"/*.requires
    mkdir "$units/sysinit.target.wants" "$units/sockets.target.wants"
    ln -s ../systemd-journald.service "$units/sysinit.target.wants"
    ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket "$units/sockets.target.wants"
    ln -sf multi-user.target "$units/default.target"
    : >"$1/etc/machine-id"
}

# become_systemd ROOT: continues as the first process of the machine.
become_systemd() {
    exec setpriv --bounding-set=-sys_module,-sys_time,-sys_boot,-sys_rawio,-syslog chroot "$1" \
        env -i container=hostgw-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --log-target=null \
        --show-status=false >/dev/null 2>&1
}
