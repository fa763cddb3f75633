"""The file system of a path, from mount lists of real Linux systems."""

# ruff: noqa: E501 - lines as the kernel writes them

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sa_sqlite_pool.system import mounts
from sa_sqlite_pool.system.mounts import (
    Mount,
    find_at_hand,
    find_mount,
    mount_of,
    parse_mounts,
    windows_share,
)

SERVER = rb"""
23 30 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
30 1 253:0 / / rw,relatime shared:1 - ext4 /dev/mapper/vg-root rw,errors=remount-ro
97 30 8:17 / /srv rw,relatime shared:51 master:2 propagate_from:1 - xfs /dev/sdb1 rw,attr2,noquota
104 30 0:48 / /mnt/team rw,relatime shared:55 - nfs 10.0.0.7:/team rw,vers=3,proto=tcp,local_lock=none
110 97 0:49 / /srv/share rw shared:60 - cifs //files.example.com/share rw,vers=3.1.1,cache=strict
120 30 0:50 / /mnt/My\040Passport rw,nosuid shared:70 - fuseblk /dev/sdc1 rw,user_id=0,blksize=4096
121 30 0:51 / /mnt/a\134b\011c rw shared:71 - ceph 10.0.0.8:6789:/ rw,name=admin,acl
125 30 0:55 / /home rw,relatime shared:80 - autofs /etc/auto.home rw,fd=7,pgrp=1,timeout=300,indirect
130 125 0:56 / /home/ann rw,relatime shared:81 - nfs4 nas:/home/ann rw,vers=4.2,hard,proto=tcp
131 30 0:57 / /data rw,relatime shared:82 - autofs systemd-1 rw,fd=50,direct,pipe_ino=15
132 131 0:58 / /data rw,relatime shared:83 - nfs4 nas:/data rw,vers=4.2,soft
140 30 0:60 / /home/bob/drive rw,nosuid,nodev shared:90 - fuse.rclone remote: rw,user_id=1000
141 30 0:61 / /opt/far rw,nosuid,nodev shared:91 - fuse.sshfs me@host:/opt rw,user_id=1000
142 30 0:62 / /opt/plain rw,nosuid,nodev shared:92 - fuse /srv/plain rw,user_id=0,allow_other
150 30 0:45 / /run/lock rw - tmpfs tmpfs rw,size=5120k,inode64
160 30 0:70 / /tank/db rw,noatime shared:99 - zfs tank/db rw,xattr,noacl
"""
BTRFS = rb"""
29 1 0:26 /@ / rw,relatime shared:1 - btrfs /dev/nvme0n1p2 rw,ssd,space_cache=v2,subvolid=256,subvol=/@
41 29 0:26 /@home /home rw,relatime shared:40 - btrfs /dev/nvme0n1p2 rw,ssd,subvolid=257,subvol=/@home
42 29 0:26 /@home/ann/x /srv/x rw shared:40 - btrfs /dev/nvme0n1p2 rw,subvolid=257,subvol=/@home
"""
DOCKER = rb"""
1201 1100 0:98 / / rw,relatime master:501 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
1202 1201 0:101 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1203 1201 0:102 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
1204 1203 0:104 / /dev/shm rw,nosuid,nodev,noexec,relatime - tmpfs shm rw,size=65536k
1210 1201 8:1 /var/lib/docker/volumes/v/_data /data rw,relatime master:1 - ext4 /dev/sda1 rw
1211 1201 8:1 /home/ann/app.db /app/app.db rw,relatime - ext4 /dev/sda1 rw
1212 1201 8:1 /home/ann/conf /conf ro,relatime - ext4 /dev/sda1 rw
1213 1201 0:110 / /image rw,relatime - squashfs /dev/loop3 ro
"""
DOCKER_DESKTOP = rb"""
900 800 0:90 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
910 900 0:91 /Users/ann/app /app rw,nosuid,nodev,relatime - fakeowner /run/host_mark/Users rw,fakeowner
911 900 0:92 /ann/old /old rw,nosuid,nodev,relatime - fuse.grpcfuse grpcfuse rw,user_id=0,max_read=1048576
912 900 0:93 /ann/older /older rw,nosuid,nodev - fuse.osxfs osxfs rw,user_id=0,allow_other
913 900 0:94 / /vm rw,relatime - virtiofs virtiofs0 rw
"""
WSL2 = rb"""
75 68 8:32 / / rw,relatime - ext4 /dev/sdc rw,discard,errors=remount-ro,data=ordered
80 75 0:43 / /mnt/wsl rw,relatime shared:1 - tmpfs none rw
95 75 0:60 / /usr/lib/wsl/drivers ro,nosuid,nodev,noatime - 9p none ro,dirsync,aname=drivers;fmask=222,trans=fd
120 75 0:70 / /mnt/c rw,noatime - 9p C:\134 rw,dirsync,aname=drvfs;path=C:\;uid=1000;gid=1000,access=client
"""
WSL1 = rb"""
2 2 0:2 / / rw,noatime - wslfs rootfs rw
3 2 0:3 / /mnt/c rw,noatime - drvfs C:\134 rw,uid=1000,gid=1000,case=off
"""
VIRTUALBOX = rb"""
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
60 25 0:40 / /vagrant rw,nodev,relatime shared:30 - vboxsf vagrant rw,iocharset=utf8,uid=1000
61 25 0:41 / /mnt/hgfs rw,nosuid,nodev,relatime shared:31 - fuse.vmhgfs-fuse vmhgfs-fuse rw
62 25 0:42 / /media/psf rw,relatime shared:32 - prl_fs none rw,host_inodes
"""
# A container whose root is a directory of an unlisted mount.
CHROOT = rb"""
300 200 0:50 / /proc rw - proc proc rw
301 200 0:51 / /data rw - nfs4 nas:/data rw
"""
PODMAN = rb"""
500 400 0:80 / / rw,nodev,noatime - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0,default_permissions
"""
# The later mount at /a covers the one at /a/b, and a third one is inside it.
COVERED = rb"""
20 1 8:1 / / rw - ext4 /dev/sda1 rw
30 20 0:40 / /a/b rw - nfs4 nas:/b rw
31 20 8:2 / /a rw - xfs /dev/sdb1 rw
32 31 0:42 / /a/c rw - cifs //s/c rw
40 20 0:43 / /dev/shm rw - tmpfs tmpfs rw
41 40 0:44 / /dev/shm rw - ramfs ramfs rw
"""

REAL_LIFE = [
    (SERVER, "/srv/app.db", "xfs", "/srv", True),
    (SERVER, "/srvs/app.db", "ext4", "/", True),
    (SERVER, "/mnt/team/app.db", "nfs", "/mnt/team", False),
    (SERVER, "/srv/share/x/app.db", "cifs", "/srv/share", False),
    (SERVER, "/mnt/My Passport/app.db", "fuseblk", "/mnt/My Passport", True),
    (SERVER, "/mnt/a\\b\tc/app.db", "ceph", "/mnt/a\\b\tc", False),
    (SERVER, "/home/ann/app.db", "nfs4", "/home/ann", False),
    (SERVER, "/home/eve/app.db", "autofs", "/home", True),
    (SERVER, "/data/app.db", "nfs4", "/data", False),
    (SERVER, "/home/bob/drive/app.db", "autofs", "/home", True),  # covered by /home
    (SERVER, "/opt/far/app.db", "fuse.sshfs", "/opt/far", False),
    (SERVER, "/opt/plain/app.db", "fuse", "/opt/plain", False),
    (SERVER, "/run/lock/app.db", "tmpfs", "/run/lock", True),
    (SERVER, "/tank/db/app.db", "zfs", "/tank/db", True),
    (BTRFS, "/var/app.db", "btrfs", "/", True),
    (BTRFS, "/home/ann/app.db", "btrfs", "/home", True),
    (BTRFS, "/srv/x/app.db", "btrfs", "/srv/x", True),
    (DOCKER, "/app/other.db", "overlay", "/", True),
    (DOCKER, "/data/app.db", "ext4", "/data", True),
    (DOCKER, "/app/app.db", "ext4", "/app/app.db", True),
    (DOCKER, "/dev/shm/app.db", "tmpfs", "/dev/shm", True),
    (DOCKER_DESKTOP, "/app/app.db", "fakeowner", "/app", False),
    (DOCKER_DESKTOP, "/old/app.db", "fuse.grpcfuse", "/old", False),
    (DOCKER_DESKTOP, "/older/app.db", "fuse.osxfs", "/older", False),
    (DOCKER_DESKTOP, "/vm/app.db", "virtiofs", "/vm", False),
    (WSL2, "/home/ann/app.db", "ext4", "/", True),
    (WSL2, "/mnt/c/Users/ann/app.db", "9p", "/mnt/c", False),
    (WSL1, "/home/ann/app.db", "wslfs", "/", True),
    (WSL1, "/mnt/c/app.db", "drvfs", "/mnt/c", False),
    (VIRTUALBOX, "/vagrant/app.db", "vboxsf", "/vagrant", False),
    (VIRTUALBOX, "/mnt/hgfs/x/app.db", "fuse.vmhgfs-fuse", "/mnt/hgfs", False),
    (VIRTUALBOX, "/media/psf/app.db", "prl_fs", "/media/psf", False),
    (PODMAN, "/app/app.db", "fuse.fuse-overlayfs", "/", True),
    (CHROOT, "/data/app.db", "nfs4", "/data", False),
    (COVERED, "/a/b/app.db", "xfs", "/a", True),
    (COVERED, "/a/c/app.db", "cifs", "/a/c", False),
    (COVERED, "/dev/shm/app.db", "ramfs", "/dev/shm", True),
]


@pytest.mark.parametrize(("text", "path", "type_", "point", "fine"), REAL_LIFE)
def test_real_life(text: bytes, path: str, type_: str, point: str, fine: bool) -> None:
    """The result has the type, the mount point, and whether WAL works there."""
    mount = mount_of(path, parse_mounts(text.strip()))
    assert mount is not None
    assert (mount.type, mount.point) == (type_, point)
    assert (mount.doubt is None) is fine


@pytest.mark.parametrize(
    ("type_", "reason"),
    [
        ("nfs4", "other machines"),
        ("9p", "the host's processes"),
        ("fuse.grpcfuse", "the host's processes"),
        ("fuse.encfs", "a FUSE program"),
        ("fuse", "a FUSE program"),
    ],
)
def test_the_reason_is_given(type_: str, reason: str) -> None:
    """Each kind has its own reason."""
    doubt = Mount(1, 0, "/", type_).doubt
    assert doubt is not None
    assert doubt.startswith(reason)


@pytest.mark.parametrize(
    ("path", "read_only"),
    [("/conf/app.db", True), ("/image/app.db", True), ("/data/app.db", False)],
)
def test_read_only_mounts(path: str, read_only: bool) -> None:
    """The options of the mount, or of its file system, decide."""
    mount = mount_of(path, parse_mounts(DOCKER.strip()))
    assert mount is not None
    assert mount.read_only is read_only


def test_what_is_not_known_is_not_said() -> None:
    """A missing root, an empty list, and lines of another form give no result."""
    assert mount_of("/app.db", parse_mounts(CHROOT.strip())) is None
    assert parse_mounts(b"") == ()
    assert (
        parse_mounts(b"1 2 3\nx y 0:1 / / rw - ext4 a rw\n5 4 0:1 / /p rw shared:1 ext4 a rw") == ()
    )


def test_names_that_are_no_utf_8() -> None:
    """They are decoded as Python decodes paths."""
    (mount,) = parse_mounts(b"1 0 0:1 / /d\xff\\040e rw - nfs4 nas:/ rw")
    assert mount.point == os.fsdecode(b"/d\xff e")


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without /proc, as on macOS or in some containers, there is no result."""
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    assert find_mount("/") is None


def test_a_root_that_is_its_own_parent() -> None:
    """This is the first file system of a machine; the search for its parent ends."""
    mount = mount_of("/app.db", parse_mounts(b"1 1 0:1 / / rw - rootfs rootfs rw"))
    assert mount is not None
    assert mount.type == "rootfs"


@pytest.mark.parametrize(
    ("path", "share"),
    [
        (r"\\server\share\dir\app.db", r"\\server\share"),
        (r"C:\data\app.db", None),
        (r"\\?\C:\data\app.db", None),
        (r"\\.\C:\data\app.db", None),
    ],
)
def test_shares_of_windows(path: str, share: str | None) -> None:
    """Shares are recognized by their paths."""
    mount = windows_share(path)
    assert (mount and mount.point) == share
    assert mount is None or mount.doubt is not None


def mount_id(path: Path) -> int:
    """Return the kernel's own number of the mount (proc_pid_fdinfo(5))."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        info = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
        return int(info.split("mnt_id:")[1].split()[0])
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="needs Linux")
@pytest.mark.parametrize("name", ["/", "/dev", "/dev/shm", "/dev/pts", "/proc", "/sys", "/tmp"])
def test_the_kernel_says_the_same(name: str) -> None:
    """The result is compared with the kernel's on this machine."""
    path = Path(name)
    if not path.is_dir():
        pytest.skip(f"there is no {name}")
    mount = find_mount(os.path.realpath(path))
    assert mount is not None
    assert mount.id == mount_id(path)


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provide a mountinfo with an ext4 root, and a file server at ``server``."""
    listing = tmp_path / "mountinfo"
    lines = [
        "1 0 0:1 / / rw - ext4 /dev/root rw",
        f"2 1 0:2 / {tmp_path}/server rw - nfs4 nas:/ rw",
    ]
    listing.write_text("\n".join(lines))
    monkeypatch.setattr(mounts, "_MOUNTINFO", listing)
    return listing


@pytest.mark.usefixtures("listing")
def test_what_is_at_hand_is_found_without_a_wait(tmp_path: Path) -> None:
    """Links are followed as by the kernel, even for a file that does not exist yet."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "link" / "app.db")
    for path in (
        tmp_path / "link" / "app.db",
        tmp_path / "absolute",
        tmp_path / "link/../real/app.db",
    ):
        found = find_at_hand(str(path))
        assert found is not None
        assert found[0] == str(tmp_path / "real" / "app.db") == os.path.realpath(path)
        assert found[1].type == "ext4"


@pytest.mark.usefixtures("listing")
def test_a_server_on_the_way_is_left_to_the_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing beyond its mount is accessed, whether the path or a link leads there."""
    (tmp_path / "link").symlink_to("server/app.db")
    (tmp_path / "loop").symlink_to("loop")
    looked, readlink = list[str](), os.readlink

    def noted(path: str) -> str:
        looked.append(path)
        return readlink(path)

    monkeypatch.setattr(os, "readlink", noted)
    for name in ("server/app.db", "server", "link", "loop"):
        assert find_at_hand(str(tmp_path / name)) is None
    assert not any(path.startswith(f"{tmp_path}/server") for path in looked)


def test_other_roots_are_left_to_the_thread(listing: Path) -> None:
    """An overlay is at hand if the process runs from it; without a list of mounts, nothing is."""
    listing.write_text("1 0 0:1 / / rw - overlay overlay rw")
    assert find_at_hand("/app.db") is not None
    listing.write_text("1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /o rw - overlay overlay rw")
    assert find_at_hand("/o/app.db") is None
    listing.write_text("1 0 0:1 / / rw - fuse.program a rw")
    assert find_at_hand("/app.db") is None
    listing.unlink()
    assert find_at_hand("/app.db") is None
