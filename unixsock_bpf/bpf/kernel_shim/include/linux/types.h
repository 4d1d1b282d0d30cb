/* The kernel's short names for integers. */
#ifndef UNIXSOCK_LINUX_TYPES_H
#define UNIXSOCK_LINUX_TYPES_H
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)
#define __always_inline inline __attribute__((always_inline))
#endif
