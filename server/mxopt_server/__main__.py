"""`python -m mxopt_server` is `mxopt-server`."""

import sys

from mxopt_server.cli import main

sys.exit(main())
