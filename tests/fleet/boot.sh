# boot.sh ROOT NAME INIT: the first process of a host, in its own fresh namespaces, on its way to be its init.
#
# ROOT is the host's mounted disk, with its /dev already made: a host may not make device nodes.
root=$1 name=$2 init=$3

echo "$name" > /proc/sys/kernel/hostname
mount --make-rprivate /
# sysvinit leaves its disk read-only when it shuts down.
mount -o remount,rw "$root"
mount --rbind "$root" "$root"
cd "$root"

mount -t proc proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mount -t tmpfs -o mode=1777,nosuid,nodev,size=1m tmpfs srv/small

mkdir -p dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
# -n: after a reboot these links are there already, and must be replaced, not followed.
ln -sfn pts/ptmx dev/ptmx
ln -sfn /proc/self/fd dev/fd
ln -sfn fd/0 dev/stdin
ln -sfn fd/1 dev/stdout
ln -sfn fd/2 dev/stderr

# What is the whole machine's is read-only; the network settings are this host's own.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,rw proc/sys/net
if [ -e proc/sysrq-trigger ]; then mount --bind /dev/null proc/sysrq-trigger; fi

# A pure cgroup2 makes systemd run in its modern mode even where the machine itself still has cgroup v1.
case $init in
systemd)
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 sys/fs/cgroup
    set -- /lib/systemd/systemd --show-status=false
    ;;
*) set -- /sbin/init ;;
esac

pivot_root . .
umount -l .
exec env -i container=fleet TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
