/* bcc carries its own copy of this header. */
#include <linux/types.h>
