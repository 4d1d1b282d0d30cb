/* The path of a file, put together from its last component up to the root of its mount namespace, as
 * the link in /proc/PID/fd would show it to somebody there. */
#ifndef UNIXSOCK_PATHS_H
#define UNIXSOCK_PATHS_H

#define PATH_ROOM 0x1000
#define NAME_ROOM 0x100

/* It lies in a map: what the verifier doesn't follow through a loop, it need not try in every combination. */
struct walk {
	u64 mount; /* struct vfsmount */
	u64 dentry; /* whose name comes next; 0: the path is whole */
	u32 begin; /* in text, where the path's end is at PATH_ROOM */
	u32 too_long;
	u8 text[PATH_ROOM + NAME_ROOM];
};

static __always_inline void begin_walk(volatile struct walk *w, u64 mount, u64 dentry)
{
	w->mount = mount;
	w->dentry = dentry;
	w->begin = PATH_ROOM;
	w->too_long = 0;
}

/* Puts one component before the path, or goes from a mount's root to where it is mounted. */
static __always_inline void walk_up(volatile struct walk *w)
{
	u64 dentry = w->dentry;
	if (dentry == LOAD(u64, w->mount, VFSMOUNT_ROOT)) {
#ifdef MOUNT_MNT
		u64 mount = w->mount - MOUNT_MNT;
		u64 up = LOAD(u64, mount, MOUNT_PARENT);
		w->mount = up + MOUNT_MNT;
		w->dentry = up && up != mount ? LOAD(u64, mount, MOUNT_MOUNTPOINT) : 0;
#else
		w->too_long = 1; /* where it is mounted is not known, so that the path is not, either */
		w->dentry = 0;
#endif
		return;
	}
	u64 len = LOAD(u32, dentry, DENTRY_NAME_LEN) & (NAME_ROOM - 1);
	u64 begin = w->begin;
	if (begin <= len) {
		w->too_long = 1;
		w->dentry = 0;
		return;
	}
	begin -= len + 1;
	w->begin = begin;
	BOUND(begin, 0xfff);
	BOUND(len, 0xff);
	w->text[begin] = '/';
	bpf_probe_read_kernel((u8 *)w->text + begin + 1, len, (void *)LOAD(u64, dentry, DENTRY_NAME));
	u64 parent = LOAD(u64, dentry, DENTRY_PARENT);
	/* What is on no disk has no directory: pipes, memfds... */
	w->dentry = parent == dentry ? 0 : parent;
}

/* A path that a socket is bound to by a relative name. */
#define PLACE_SIZE 0x200
struct place {
	u64 len;
	u8 path[PLACE_SIZE];
};
BPF_TABLE("lru_hash", u64, struct place, places, 2048); /* by address of its struct unix_address */

#endif
