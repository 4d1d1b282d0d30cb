"""Which kernel structures the probe reads, as macros for its C.

Members that kernels name differently are listed newest first; the first that BTF has counts.
Optional ones are left undefined where the kernel has none of them, and the C says ``#ifdef``.
"""

from __future__ import annotations

from typing import Protocol

from unixsock_bpf.probe.btf import BtfError, Member

#: macro: members, newest first.
OFFSETS: dict[str, tuple[str, ...]] = {
    "SKB_SK": ("sk_buff.sk",),
    "SKB_LEN": ("sk_buff.len",),
    "SKB_DATA_LEN": ("sk_buff.data_len",),
    "SKB_DATA": ("sk_buff.data",),
    "SKB_HEAD": ("sk_buff.head",),
    "SKB_END": ("sk_buff.end",),
    "SKB_CB": ("sk_buff.cb",),
    "SHARED_NR_FRAGS": ("skb_shared_info.nr_frags",),
    "SHARED_FRAGS": ("skb_shared_info.frags",),
    "SOCK_FAMILY": ("sock.__sk_common.skc_family",),
    "SOCK_NET": ("sock.__sk_common.skc_net.net",),
    "SOCK_TYPE": ("sock.sk_type",),
    "SOCK_FLAGS": ("sock.__sk_common.skc_flags",),
    "SOCK_SHUTDOWN": ("sock.sk_shutdown",),
    "SOCK_SOCKET": ("sock.sk_socket",),
    "SOCK_RECEIVE_QUEUE": ("sock.sk_receive_queue",),
    "SOCK_STATE": ("sock.__sk_common.skc_state",),
    "SOCK_MAX_BACKLOG": ("sock.sk_max_ack_backlog",),
    "SKB_QUEUE_LEN": ("sk_buff_head.qlen",),
    "SOCK_PEER_PID": ("sock.sk_peer_pid",),
    "SOCK_PEER_CRED": ("sock.sk_peer_cred",),
    "SOCKET_SK": ("socket.sk",),
    "SOCKET_FLAGS": ("socket.flags",),
    "SOCKET_FILE": ("socket.file",),
    "SOCKET_ALLOC_INODE": ("socket_alloc.vfs_inode",),
    "INODE_INO": ("inode.i_ino",),
    "NET_INUM": ("net.ns.inum",),
    "UNIX_SOCK_PEER": ("unix_sock.peer",),
    "UNIX_SOCK_ADDR": ("unix_sock.addr",),
    "UNIX_ADDRESS_LEN": ("unix_address.len",),
    "UNIX_ADDRESS_NAME": ("unix_address.name",),
    "PARMS_PID": ("unix_skb_parms.pid",),
    "PARMS_UID": ("unix_skb_parms.uid",),
    "PARMS_GID": ("unix_skb_parms.gid",),
    "PARMS_FP": ("unix_skb_parms.fp",),
    "MSGHDR_NAME": ("msghdr.msg_name",),
    "MSGHDR_NAME_LEN": ("msghdr.msg_namelen",),
    "MSGHDR_FLAGS": ("msghdr.msg_flags",),
    "MSGHDR_ITER": ("msghdr.msg_iter",),
    "IOV_ITER_COUNT": ("iov_iter.count",),
    "FP_COUNT": ("scm_fp_list.count",),
    "FP_FILES": ("scm_fp_list.fp",),
    "SCM_FP": ("scm_cookie.fp",),
    "FILE_INODE": ("file.f_inode",),
    "FILE_PRIVATE": ("file.private_data",),
    "FILE_MOUNT": ("file.f_path.mnt",),
    "FILE_DENTRY": ("file.f_path.dentry",),
    "INODE_MODE": ("inode.i_mode",),
    "INODE_SB": ("inode.i_sb",),
    "SB_MAGIC": ("super_block.s_magic",),
    "DENTRY_NAME": ("dentry.d_name.name",),
    "DENTRY_NAME_LEN": ("dentry.d_name.len",),
    "DENTRY_NAME_HASH_LEN": ("dentry.d_name.hash_len",),
    "DENTRY_PARENT": ("dentry.d_parent",),
    "DENTRY_UNHASHED": ("dentry.d_hash.pprev",),  # NULL: no name leads to it any more
    "VFSMOUNT_ROOT": ("vfsmount.mnt_root",),
    "UNIX_SOCK_MOUNT": ("unix_sock.path.mnt",),
    "UNIX_SOCK_DENTRY": ("unix_sock.path.dentry",),
    "TASK_CGROUPS": ("task_struct.cgroups",),
    "CSS_SET_CGROUP": ("css_set.dfl_cgrp",),
    "CGROUP_NODE": ("cgroup.kn",),
    "CGROUP_LEVEL": ("cgroup.level",),
    "CGROUP_ROOT": ("cgroup.root",),
    "CGROUP_ROOT_HIERARCHY": ("cgroup_root.hierarchy_id",),
    "NODE_ID": ("kernfs_node.id",),
    "TASK_NSPROXY": ("task_struct.nsproxy",),
    "NSPROXY_MOUNTS": ("nsproxy.mnt_ns",),
    "TASK_GROUP_LEADER": ("task_struct.group_leader",),
    "TASK_REAL_PARENT": ("task_struct.real_parent",),
    "TASK_TGID": ("task_struct.tgid",),
    "TASK_COMM": ("task_struct.comm",),
    "TASK_PID_LINKS": ("task_struct.pid_links",),
    "PID_TASKS": ("pid.tasks",),
    "PID_NUMBERS_NR": ("pid.numbers",),  # of the first: the initial pid namespace
    "PID_NUMBERS": ("pid.numbers",),
    "PID_LEVEL": ("pid.level",),
    "UPID_NR": ("upid.nr",),
    "UPID_NS": ("upid.ns",),
    "PID_NAMESPACE_INUM": ("pid_namespace.ns.inum",),
    "TASK_THREAD_PID": ("task_struct.thread_pid",),
    "CRED_UID": ("cred.uid",),
    "CRED_GID": ("cred.gid",),
    # A fragment was a bio_vec until Linux commit 21d2e6737c97 ("net: add netmem to skb_frag_t") (in v6.9).
    "FRAG_PAGE": ("skb_frag.netmem", "skb_frag.bv_page", "bio_vec.bv_page"),
    "FRAG_LEN": ("skb_frag.len", "skb_frag.bv_len", "bio_vec.bv_len"),
    "FRAG_OFFSET": ("skb_frag.offset", "skb_frag.bv_offset", "bio_vec.bv_offset"),
}

#: The same, where a kernel may have none.
OPTIONAL: dict[str, tuple[str, ...]] = {
    # Not in the headers that modules are built against, where layouts come from these.
    "MOUNT_MNT": ("mount.mnt",),
    "MOUNT_PARENT": ("mount.mnt_parent",),
    "MOUNT_NAMESPACE": ("mount.mnt_ns",),
    "MOUNT_MOUNTPOINT": ("mount.mnt_mountpoint",),
    # Linux commit 7f203bc89eb6 ("cgroup: Replace cgroup->ancestor_ids[] with ->ancestors[]") (in v6.1)
    "CGROUP_ANCESTORS": ("cgroup.ancestors",),
    "CGROUP_ANCESTOR_IDS": ("cgroup.ancestor_ids",),
    # Linux commit 314001f0bf92 ("af_unix: Add OOB support") (in v5.15)
    "UNIX_SOCK_OOB_SKB": ("unix_sock.oob_skb",),
    # Linux commit f4e1fb04c123 ("af_unix: Use cached value for SOCK_STREAM in unix_inq_len().") (in v6.17)
    "UNIX_SOCK_INQ_LEN": ("unix_sock.inq_len",),
    # Linux commit bc34dee65a65 ("bpf: Dynptr support for ring buffers") (in v5.19)
    "DYNPTR": ("bpf_dynptr_kern.data",),
    # CONFIG_SECURITY_NETWORK
    "PARMS_SECID": ("unix_skb_parms.secid",),
    # Linux commit 0e81cfd971dc ("af_unix: Move SOCK_PASS{CRED,PIDFD,SEC} to struct sock.") (in v6.16)
    "SOCK_SCM_RECV_FLAGS": ("sock.sk_scm_recv_flags",),
}

SIZES = {
    "SKB_SIZE": ("sk_buff",),
    "FRAG_SIZE": ("skb_frag", "bio_vec"),
    "STRUCT_PAGE_SIZE": ("page",),
    "UPID_SIZE": ("upid",),
}


#: All that is asked for: members as ``struct.member``, and structures.
MEMBERS = frozenset(path for paths in (*OFFSETS.values(), *OPTIONAL.values()) for path in paths)
STRUCTS = frozenset(name for names in SIZES.values() for name in names)


class Types(Protocol):
    """Where layouts come from: ``btf.Btf`` or ``kernel_headers.KernelHeaders``."""

    def has_struct(self, name: str) -> bool: ...
    def member(self, path: str) -> Member | None: ...
    def size(self, struct: str) -> int: ...
    def has_function(self, name: str) -> bool: ...
    @property
    def has_function_types(self) -> bool: ...


def _first(types: Types, members: tuple[str, ...]) -> int | None:
    for path in members:
        if types.has_struct(path.split(".")[0]):
            member = types.member(path)
            if member is not None:
                return member.offset
    return None


def macros(types: Types) -> dict[str, int]:
    """Every offset and size that the probe's C wants.

    Raises BtfError, naming the member, where this kernel lacks one that is needed.
    """
    found = {}
    for macro, members in OFFSETS.items():
        offset = _first(types, members)
        if offset is None:
            raise BtfError(f"the kernel has no {' or '.join(members)}")
        found[macro] = offset
    for macro, members in OPTIONAL.items():
        offset = _first(types, members)
        if offset is not None:
            found[macro] = offset
    for macro, structs in SIZES.items():
        found[macro] = next(types.size(struct) for struct in structs if types.has_struct(struct))
    return found
