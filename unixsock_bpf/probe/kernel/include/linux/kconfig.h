/* bcc includes this first, to learn how the kernel was configured.  The probe asks only whether
   there is BPF; layouts come from the running kernel's BTF. */
#define CONFIG_BPF_SYSCALL 1
