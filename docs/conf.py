"""Settings of the documentation: `make docs` builds it with Sphinx, MyST and furo."""

from trainer import __version__

project = "equipoise"
author = "the equipoise developers"
release = __version__
html_title = f"equipoise {__version__}"
html_theme = "furo"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_extra_path = ["llms.txt"]
html_sourcelink_suffix = ""
smartquotes = False
default_role = "code"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["notebooks"]
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
