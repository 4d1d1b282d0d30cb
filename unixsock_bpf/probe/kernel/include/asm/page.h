/* The loader passes the page size with -D: bcc counts ring buffers in pages. */
#ifndef PAGE_SIZE
#error "PAGE_SIZE is passed by the loader"
#endif
