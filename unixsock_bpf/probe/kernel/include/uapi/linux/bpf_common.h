/* Part of bcc's own copy of linux/bpf.h. */
