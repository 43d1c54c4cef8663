"""`tests.support.serve_fake` with a terminal of its own on which nobody types: what asks there waits for ever."""

import fcntl
import os
import pty
import runpy
import termios

if __name__ == "__main__":
    os.setsid()
    _, terminal = pty.openpty()  # both ends stay open, so that a reader waits and sees no end
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
    runpy.run_module("tests.support.serve_fake", run_name="__main__")
