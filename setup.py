"""The description of the package in an index: the README without what only leads somewhere in the
source."""

import re
from pathlib import Path

from setuptools import setup

text = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
text = re.sub(r"!\[[^]]*\]\((?!https?:)[^)]*\)\n*", "", text)  # pictures
text = re.sub(r"\[([^]]*)\]\((?!https?:)([^)]*)\)", r"\1 (in `\2`)", text)
setup(long_description=text, long_description_content_type="text/markdown")
