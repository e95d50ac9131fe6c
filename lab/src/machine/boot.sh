# Boots a Debian with systemd as process 1 in namespaces of its own. $1: its tree, which stays as it is; $2: a folder for
# what it writes; $3: its control group, seen as the root of all; $4: a folder that it sees as /mnt.
set -e
tree=$1 work=$2 shared=$4
mount --make-rprivate /
mkdir -p "$work"
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/overlay" "$work/root"
mount -t overlay overlay -o "lowerdir=$tree,upperdir=$work/upper,workdir=$work/overlay" "$work/root"
cd "$work/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    : > "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm old
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mount --bind "$shared" mnt
mount -o remount,bind,ro mnt
hostname tortie-lab
pivot_root . old
umount -l old
rmdir old
# As on a machine: what is mounted later, such as network namespaces, is seen in services' sandboxes, too.
mount --make-rshared /
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=multi-user.target
