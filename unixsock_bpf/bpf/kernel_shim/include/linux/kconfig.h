/* bcc reads this first, to learn how the kernel was configured.  The probe does not ask: layouts come from the
 * running kernel's BTF. */
