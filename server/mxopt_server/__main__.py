"""`python -m mxopt_server` is `mxopt-server`."""

import sys

if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the current folder: whoever may write there would choose what a server runs

from mxopt_server.cli import main

sys.exit(main())
