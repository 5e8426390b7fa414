"""Sphinx: Markdown pages, the API from docstrings, the command lines from their own help."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

project = "ecgcohorts"
author = "ecgcohorts contributors"
copyright = "ecgcohorts contributors, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "plain_docstrings", "command_help", "plugin_pages"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_ext", "parts/_*"]
suppress_warnings = ["config.cache"]

autodoc_default_options = {"member-order": "bysource", "exclude-members": "model_config"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
default_role = "code"  # docstrings write `name`

html_theme = "pydata_sphinx_theme"
html_title = "ecgcohorts and capezoo"
html_show_sourcelink = False
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False, "show_toc_level": 2}
html_sidebars = {"**": []}
