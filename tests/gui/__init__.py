"""Wireshark's windows, driven by mouse and keyboard on a screen that nobody sees.

What is in a window, and where, is asked through AT-SPI, which Qt speaks for screen readers:
so a test says "click the row 'Unix sockets'" and reads texts, whatever the layout.
"""
